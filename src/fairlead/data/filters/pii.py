"""Personal data and secrets: found by pattern, checked where a number can be, replaced by a placeholder."""

import ipaddress
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from fairlead.config.filters import Action, PiiConfig
from fairlead.data.filters.outcome import Dropped, Kept
from fairlead.data.filters.texts import settled
from fairlead.data.views import whole_text
from fairlead.records import Prompt, Record

_EMAIL = re.compile(
    r"(?<![A-Za-z0-9._%+/-])(?!git@)[A-Za-z0-9_%+-][A-Za-z0-9._%+-]{0,63}@"
    r"(?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.){1,8}[A-Za-z]{2,24}(?![A-Za-z0-9_-])"
)
_PHONE = re.compile(
    r"(?<![0-9A-Za-z_#+*^×÷])(?<![0-9][.,-])(?<![+*^×÷] )(?<![0-9] = )(?<![0-9]=)(?<!=-)(?<!= -)(?:"
    r"(?:(?:\+|00)?86[- ]?)?1[3-9][0-9]([- ]?)[0-9]{4}\1[0-9]{4}"  # a Chinese mobile number
    r"|0(?:10|2[0-9]|[3-9][0-9]{2})-[1-9][0-9]{6,7}|\(0(?:10|2[0-9]|[3-9][0-9]{2})\) ?[1-9][0-9]{6,7}"  # a landline
    r"|[48]00-[0-9]{3}-[0-9]{4}|[48]00-[0-9]{4}-[0-9]{3}"
    r"|\+[1-9][0-9]{0,2}(?:[- .]?\(?[0-9]{1,4}\)?){2,5}"  # with a country code
    r"|(?:1[-. ])?(?:\([2-9][0-9]{2}\) ?|[2-9][0-9]{2}[-.])[2-9][0-9]{2}[-.][0-9]{4}"  # North America
    r")(?![0-9A-Za-z_])(?![.,-][0-9])(?! ?[*^×÷]| [-+=] ?[0-9])"
)
_ID_CARD = re.compile(
    r"(?<![0-9A-Za-z])[1-9][0-9]{5}(?:18|19|20)[0-9]{2}"  # place and year
    r"(?:0[1-9]|1[0-2])(?:0[1-9]|[12][0-9]|3[01])[0-9]{3}[0-9Xx](?![0-9A-Za-z])"
)
_KEY = re.compile(
    r"-----BEGIN (?:[A-Z]{2,10} ){0,2}PRIVATE KEY(?: BLOCK)?-----[A-Za-z0-9+/=:,.\s\\-]{40,8000}?"
    r"-----END (?:[A-Z]{2,10} ){0,2}PRIVATE KEY(?: BLOCK)?-----"
    r"|(?P<keep>(?i:secret_?(?:access_?)?key)[\"']?\s{0,4}[:=]\s{0,4}[\"']?)[A-Za-z0-9+/]{40}(?![A-Za-z0-9+/=])"
    r"|\b(?:AKIA|ASIA)[A-Z0-9]{16}\b"
    r"|\bgh[pousr]_[A-Za-z0-9]{36,255}\b|\bgithub_pat_[A-Za-z0-9_]{22,255}\b"
    r"|(?<![\w-])sk-(?:(?:proj|svcacct|admin|live|test|or-v1|ant-api[0-9]{2})-)?(?=[A-Za-z_-]{0,200}[0-9])"
    r"(?=[a-z0-9_-]{0,200}[A-Z]|[a-z0-9]{32})[A-Za-z0-9_-]{20,250}"
    r"|\bAIza[A-Za-z0-9_-]{35}(?![A-Za-z0-9_-])|\bxox[abprs]-[0-9]{8,}-[A-Za-z0-9-]{6,250}|\bhf_[A-Za-z0-9]{30,40}\b",
    re.ASCII,  # no space stands between Chinese and a key
)
_IP = re.compile(
    r"(?<![\w.-])(?:[0-9]{1,3}\.){3}[0-9]{1,3}(?![\w-]|\.[0-9])"
    r"|(?<![\w:.])(?:[0-9A-Fa-f]{1,4}:|:){3,7}[0-9A-Fa-f]{0,4}(?![\w:.])",
    re.ASCII,
)
_VERSION = re.compile(
    r"(?:\b(?:version|release|ver|v|chapter|section|build)|版本号?|第|章|节|条|升级[到至]|更新[到至])[ :：.]*\Z", re.I
)
_HAN = "\u4e00-\u9fff"
_NAME = f"(?:(?![我你他她它在住于到寄是的从去为位址至])[{_HAN}])"
_ADDRESS = re.compile(
    rf"(?:{_NAME}{{2,8}}?(?:省|自治区))?{_NAME}{{2,8}}?[市州盟县区](?:{_NAME}{{1,8}}?[区县市旗镇乡])?"
    rf"[{_HAN}A-Za-z0-9]{{1,12}}?(?:路|街|道|巷|弄|胡同|里)[0-9一二三四五六七八九十百]{{1,6}}[号弄]"
    rf"(?:院|楼)?(?:[{_HAN}A-Za-z0-9]{{0,10}}?[0-9一二三四五六七八九十]{{1,5}}(?:号楼|栋|幢|座|单元|层|楼|室))*"
)
_WEIGHTS = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)  # GB 11643-1999


@dataclass(frozen=True, slots=True)
class _Kind:
    """One kind of data: what its placeholder says, how it looks, and how to tell it from what only looks like it."""

    name: str
    action: Action
    pattern: re.Pattern[str]
    is_one: Callable[[re.Match[str]], bool] = bool

    def found_in(self, text: str) -> bool:
        """Whether the text holds one."""
        return any(map(self.is_one, self.pattern.finditer(text)))

    def masked(self, text: str) -> str:
        """The text with a placeholder for each."""
        return self.pattern.sub(self._placeholder, text)

    def _placeholder(self, match: re.Match[str]) -> str:
        before = match.groupdict().get("keep") or ""
        return f"{before}[{self.name.upper()}]" if self.is_one(match) else match[0]


def pii(record: Record, config: PiiConfig) -> Kept | Dropped:
    """Drop a record with what shall not be there, and mask the rest of it."""
    kinds = [kind for kind in _kinds(config) if kind.action != "off"]
    text = whole_text(record) + (f"\n{record.answer}" if isinstance(record, Prompt) else "")
    found = [kind for kind in kinds if kind.found_in(text)]
    if dropped := next((kind for kind in found if kind.action == "drop"), None):
        return Dropped(f"holds {dropped.name}")
    return settled(record, {kind.name: kind.masked for kind in kinds}) if found else Kept(record)


def masked(text: str, config: PiiConfig) -> str:
    """The text with a placeholder for all that is looked for, also where a record with it would be dropped."""
    for kind in _kinds(config):
        text = kind.masked(text) if kind.action != "off" else text
    return text


def _kinds(config: PiiConfig) -> tuple[_Kind, ...]:
    """The surest first: a phone number may look like a part of an address or a key."""
    is_address = partial(_is_ip, private_too=config.private_ips)
    return (
        _Kind("key", config.key, _KEY),
        _Kind("email", config.email, _EMAIL),
        _Kind("id_card", config.id_card, _ID_CARD, _has_check_digit),
        _Kind("phone", config.phone, _PHONE, _is_phone),
        _Kind("ip", config.ip, _IP, is_address),
        _Kind("address", config.address, _ADDRESS),
    )


def _has_check_digit(match: re.Match[str]) -> bool:
    digits = match[0].upper()
    return "10X98765432"[sum(w * int(d) for w, d in zip(_WEIGHTS, digits, strict=False)) % 11] == digits[-1]


def _is_phone(match: re.Match[str]) -> bool:
    """With a country code: 8 to 15 digits (E.164), and 10 where nothing separates them, or it may be any number."""
    if not match[0].startswith("+"):
        return True
    num_digits = sum(map(str.isdigit, match[0]))
    return (8 if num_digits < len(match[0]) - 1 else 10) <= num_digits <= 15


def _is_ip(match: re.Match[str], *, private_too: bool) -> bool:
    """An address, and no version, numbered heading or scope of C++ that looks like one."""
    try:
        address = ipaddress.ip_address(match[0])
    except ValueError:
        return False
    before = match.string[max(match.start() - 20, 0) : match.start()]
    if address.version == 4:
        is_heading = not before.rpartition("\n")[2].strip(" #*") and all(part < 30 for part in address.packed)
        is_other = is_heading or _VERSION.search(before) is not None
    else:
        is_other = sum(map(bool, match[0].split(":"))) < 3
    return not is_other and (private_too or address.is_global)
