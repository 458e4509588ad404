"""Chinese in one script."""

import re
from collections.abc import Callable
from functools import lru_cache
from importlib import import_module
from typing import Literal

from fairlead.data.filters.outcome import Dropped, Kept
from fairlead.data.filters.texts import settled
from fairlead.errors import UserError
from fairlead.records import Record

_ENCODABLE = re.compile(r"[^\ud800-\udfff]+")  # half a surrogate pair is no text to OpenCC
Script = Literal["simplified", "traditional"]


def to_script(record: Record, script: Script) -> Kept | Dropped:
    """All texts in this script."""
    return settled(record, {f"{script} Chinese": converter(script)})


@lru_cache(maxsize=2)
def converter(script: Script) -> Callable[[str], str]:
    """What writes a text in this script. Raises UserError where OpenCC is not installed."""
    try:
        opencc = import_module("opencc")
    except ImportError as error:
        raise UserError(
            f"filters.script={script} needs a package that is not installed ({error})",
            fix="pip install opencc, or set filters.script=keep",
        ) from error
    convert = opencc.OpenCC("t2s" if script == "simplified" else "s2t").convert
    return lambda text: _ENCODABLE.sub(lambda match: convert(match[0]), text)
