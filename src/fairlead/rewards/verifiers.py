"""Rules that score a response: pure functions of text.

`pattern` is a regular expression whose first group is the answer in a response, such as `Answer: (.+)`; of several
matches the last counts, because a model that corrects itself means its last word.
"""

import re
import unicodedata
from fractions import Fraction

_NUMBER = re.compile(r"[-−+]?(?:\d[\d,]*\.?\d*|\.\d+)(?:\s*/\s*\d+)?")


def exact_match(response: str, answer: str, *, pattern: str) -> float:
    """1 when the response's answer is the reference answer, letter case and outer white space aside, else 0."""
    found = answer_in(response, pattern)
    return float(found is not None and _plain(found) == _plain(answer))


def maths_answer(response: str, answer: str, *, pattern: str) -> float:
    """1 when the response's answer is the number that the reference answer ends with, else 0.

    Numbers are compared by value: 1,000 is 1000, 0.50 is 1/2, full-width digits are digits. Without a pattern the last
    number of the response is its answer.
    """
    found = answer_in(response, pattern)
    wanted = last_number(answer)
    return float(found is not None and wanted is not None and last_number(found) == wanted)


def answer_format(response: str, *, pattern: str) -> float:
    """1 when the response holds an answer in the format of the pattern, else 0."""
    return float(answer_in(response, pattern) is not None)


def answer_in(response: str, pattern: str) -> str | None:
    """What the pattern's first group last matched; the whole response without a pattern, None without a match."""
    if not pattern:
        return response
    found = list(re.finditer(pattern, response))
    if not found:
        return None
    return found[-1].group(1 if found[-1].re.groups else 0)


def last_number(text: str) -> Fraction | None:
    """The value of the last number in a text, None if there is none."""
    found = _NUMBER.findall(unicodedata.normalize("NFKC", text))
    if not found:
        return None
    written = found[-1].replace(",", "").replace("−", "-").replace(" ", "").rstrip(".")
    top, _, bottom = written.partition("/")
    return Fraction(top) / Fraction(bottom) if bottom and int(bottom) else Fraction(top)


def _plain(text: str) -> str:
    return unicodedata.normalize("NFKC", text).strip().casefold()
