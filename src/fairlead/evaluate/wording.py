"""Numbers as a reader wants them."""

import math
import unicodedata
from collections.abc import Callable, Mapping
from pathlib import Path


def percent(share: float) -> str:
    """0.731 as "73.1 %"."""
    return f"{100 * share:.1f} %"


def fixed(value: float) -> str:
    """Two decimals, with a real minus sign."""
    return f"{value:.2f}".replace("-", "−")


def signed(value: float, digits: int = 2) -> str:
    """A number with its sign always shown."""
    return f"{value:+.{digits}f}".replace("-", "−")


def points(share: float) -> str:
    """A difference of shares in percentage points: 0.213 as "+21.3"."""
    return signed(100 * share, digits=1)


def between(low: float, high: float, form: Callable[[float], str] = fixed) -> str:
    """Two ends; percent signs are said once."""
    first, last = form(low), form(high)
    return f"{first.removesuffix(' %')} to {last}"


def interval(low: float, high: float, form: Callable[[float], str] = fixed) -> str:
    """A 95 % interval, said as one."""
    return f"95 % interval {between(low, high, form)}"


def duration(seconds: float) -> str:
    """312.4 as "5 min 12 s"."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def size(num_bytes: int) -> str:
    """1.5e9 as "1.4 GiB"."""
    if num_bytes < 1024:
        return f"{num_bytes} bytes"
    power = min(4, int(math.log(num_bytes, 1024)))
    return f"{num_bytes / 1024**power:.1f} {('KiB', 'MiB', 'GiB', 'TiB')[power - 1]}"


def count(number: float) -> str:
    """12345 in groups of three digits, with a narrow space that does not break."""
    return f"{number:,.0f}".replace(",", "\u202f")


def sizes(named: Mapping[str, int]) -> str:
    """{"rows": 330, "tokens": 81234} as "330 rows, 81 234 tokens"."""
    return ", ".join(f"{count(number)} {name.replace('_', ' ')}" for name, number in named.items())


def place(name: str) -> str:
    """A model's folder by its last name, which means something to others; starter names and hub ids as they are."""
    return Path(name).name if Path(name).is_absolute() else name


def shortened(name: str, longest: int) -> str:
    """The end of a name that is too long: folders differ at their ends."""
    return name if len(name) <= longest else f"…{name[1 - longest :]}"


def readable(text: str) -> str:
    """A model's text without control characters, which a page or a terminal would obey or refuse."""
    return "".join(c if c in "\n\t" or unicodedata.category(c) not in ("Cc", "Cs") else "\ufffd" for c in text)
