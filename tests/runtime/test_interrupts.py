"""The first signal is remembered, the second ends the process at once, and handlers are given back."""

import os
import signal
import subprocess
import sys
import time

import pytest

from fairlead.runtime.interrupts import Interrupts


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_the_first_signal_is_remembered(number, code):
    before = signal.getsignal(number)
    with Interrupts() as interrupts:
        assert interrupts.received is None
        os.kill(os.getpid(), number)
        assert interrupts.received == number
        assert interrupts.exit_code == code
    assert signal.getsignal(number) is before


WAITING = """
import time
from fairlead.runtime.interrupts import Interrupts
with Interrupts() as interrupts:
    print("ready", flush=True)
    while interrupts.received is None:
        time.sleep(0.01)
    print("remembered", flush=True)
    time.sleep(60)
"""


@pytest.mark.parametrize(("first", "second"), [(signal.SIGINT, signal.SIGINT), (signal.SIGTERM, signal.SIGINT)])
def test_the_second_signal_ends_the_process_at_once(first, second):
    process = subprocess.Popen([sys.executable, "-c", WAITING], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "ready\n"
    process.send_signal(first)
    assert process.stdout.readline() == "remembered\n"
    began = time.monotonic()
    process.send_signal(second)
    assert process.wait(timeout=30) == 128 + second
    assert time.monotonic() - began < 30
