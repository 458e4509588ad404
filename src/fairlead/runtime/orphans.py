"""Preloaded by the fork server of `multiprocess`: what it forks ends soon after the process that it works for.

Without this, kill -9 of that process leaves a Manager's server behind for ever, and whoever reads its output waits.
"""

import os
import time
from threading import Thread

from multiprocess.process import parent_process

LOOK_SECONDS = 0.5


def watch() -> None:
    """End this process at once when its parent is gone, whatever its other threads do."""
    while (parent := parent_process()) is None or parent.is_alive():  # None: not told of it yet
        time.sleep(LOOK_SECONDS)
    os._exit(1)


os.register_at_fork(after_in_child=lambda: Thread(target=watch, daemon=True).start())
