"""Personal data and secrets, and what only looks like them."""

import pytest
from hypothesis import given

from fairlead.config.filters import PiiConfig
from fairlead.data.filters.outcome import Dropped, Kept
from fairlead.data.filters.pii import pii
from fairlead.records import Document
from tests.data.filters.rows import CLEAN, RECORDS, ask, chat, pair

NAMES = ("email", "phone", "id_card", "key", "ip", "address")
ALL = PiiConfig(address="mask")
DROP = PiiConfig(**dict.fromkeys(NAMES, "drop"))
AWS_EXAMPLE = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
PRIVATE_KEY = "-----BEGIN RSA PRIVATE KEY-----\n" + "MIIEpAIBAAKCAQEA7bq0\n" * 6 + "-----END RSA PRIVATE KEY-----"

FOUND = [
    ("email", "Write to ann.lee+news@mail.example.co.uk, please.", "Write to [EMAIL], please."),
    ("email", "联系邮箱：zhang_san@163.com。", "联系邮箱：[EMAIL]。"),
    ("email", "请发到li@qq.com谢谢", "请发到[EMAIL]谢谢"),
    ("phone", "我的手机号是13812345678，随时联系", "我的手机号是[PHONE]，随时联系"),
    ("phone", "电话：138-1234-5678或+86 139 1234 5678", "电话：[PHONE]或[PHONE]"),
    ("phone", "拨打010-62345678或(021) 52345678", "拨打[PHONE]或[PHONE]"),
    ("phone", "热线400-820-8820", "热线[PHONE]"),
    ("phone", "Call +1 (555) 123-4567 or +44 20 7946 0958.", "Call [PHONE] or [PHONE]."),
    ("phone", "Call (415) 555-2671, 415-555-2671 or 1-415-555-2671.", "Call [PHONE], [PHONE] or [PHONE]."),
    ("phone", "WhatsApp: +8613812345678", "WhatsApp: [PHONE]"),
    ("id_card", "身份证号11010519491231002X已登记", "身份证号[ID_CARD]已登记"),
    ("id_card", "ID: 440524188001010014.", "ID: [ID_CARD]."),
    ("key", "export AWS_ACCESS_KEY_ID=AKIAIOSFODNN7EXAMPLE", "export AWS_ACCESS_KEY_ID=[KEY]"),
    ("key", f'aws_secret_access_key = "{AWS_EXAMPLE}"', 'aws_secret_access_key = "[KEY]"'),
    ("key", "token ghp_" + "a1B2" * 9 + " here", "token [KEY] here"),
    ("key", "github_pat_" + "11ABCDE0Y0" * 4, "[KEY]"),
    ("key", "openai.api_key = 'sk-" + "aB3dE6gH" * 6 + "'", "openai.api_key = '[KEY]'"),
    ("key", "密钥sk-proj-" + "aB3_E6gH" * 6, "密钥[KEY]"),
    ("key", "key=AIza" + "Sy0-_" * 7, "key=[KEY]"),
    ("key", "hf_" + "aBcDeFgH" * 4, "[KEY]"),
    ("key", "xoxb-123456789012-abcDEF", "[KEY]"),
    ("key", f"The key:\n{PRIVATE_KEY}\nKeep it.", "The key:\n[KEY]\nKeep it."),
    ("ip", "The server at 8.8.8.8 answered.", "The server at [IP] answered."),
    ("ip", "服务器地址是123.125.114.144，端口80", "服务器地址是[IP]，端口80"),
    ("ip", "ping 2001:4860:4860::8888 now", "ping [IP] now"),
    ("address", "我住在北京市朝阳区建国路88号院3号楼502室，欢迎来玩", None),
    ("address", "寄到浙江省杭州市西湖区文三路90号", None),
]
KEPT = [
    *CLEAN,
    "2023-10-12 12:30:45, 12/10/2023, 1999.12.31",
    "Python 3.11.7, version 1.2.3.4, v10.0.19041.1, 版本号：2.4.6.8",
    "3.1.2.4 System design\n3.1.2.5 Tests",
    "f(x) = 13812345678 * 2 + 3.13812345678",
    "x+12345678, 200 + 3000 = 3200, 10000000000",
    "3 × 13812345678 = 41437037034",
    "84834150134 - 101500729512 = -16666579378",
    "13812345678 + 5 = 13812345683",
    "x = 5 * 13812345678, y = 2 + 13812345678",
    "temperatures: +1 2 3 4 5, +12 345",
    "π ≈ 3.14159265358979323846",
    "timestamp 1577836800000, order 20231012123456",
    "ISBN 978-7-302-12345-6, 0-306-40615-2",
    "身份证号110105194912310021的校验位不对",  # the check digit is wrong
    "git clone git@github.com:user/project.git",
    "@user, a@b, user@localhost",
    "sha1 da39a3ee5e6b4b0d3255bfef95601890afd80709",
    "sk-learn, the class sk-toggleable__label-arrow-2, task-force",
    "A key begins with -----BEGIN PRIVATE KEY----- and ends with -----END PRIVATE KEY-----.",
    "127.0.0.1, 192.168.1.1, 10.0.0.1, 0.0.0.0, 255.255.255.0, 999.1.2.3",
    "std::vector<a::b::c>, 12:30:45:59, 00:1A:2B:3C:4D:5E, a::b::d",
    "在路上，第3号选手走过了长安街",
    "他走了三里路，买了2号电池",
    "#13812345678, ABC13812345678",
]


@pytest.mark.parametrize(("name", "text", "masked"), FOUND)
def test_what_is_found_is_masked_or_dropped(name, text, masked):
    only = PiiConfig(**(dict.fromkeys(NAMES, "off") | {name: "mask"}))
    kept = pii(chat(text), only)
    assert kept.changed == name
    assert masked is None or kept.record == chat(masked)
    assert f"[{name.upper()}]" in kept.record.messages[-1].content
    assert pii(chat(text), PiiConfig(**(dict.fromkeys(NAMES, "off") | {name: "drop"}))) == Dropped(f"holds {name}")
    off = PiiConfig(**(dict.fromkeys(NAMES, "drop") | {name: "off"}))
    assert pii(chat(text), off) == Kept(chat(text)), "nothing else takes it for its own"


@pytest.mark.parametrize("text", KEPT)
def test_what_only_looks_like_it_is_kept(text):
    assert pii(chat(text), ALL) == Kept(chat(text))
    assert pii(chat(text), DROP) == Kept(chat(text))


def test_an_address_is_masked_whole():
    text = "我住在北京市朝阳区建国路88号院3号楼502室，欢迎来玩"
    masked = pii(chat(text), ALL).record.messages[-1].content
    assert masked.endswith("[ADDRESS]，欢迎来玩")
    assert not set("朝阳建国路号楼室0123456789") & set(masked)
    assert pii(chat(text), PiiConfig()) == Kept(chat(text)), "off unless asked for"


def test_private_addresses_count_when_asked():
    text = "ssh 192.168.1.17, then fe80:0:0:0:1::2"
    assert pii(chat(text), PiiConfig()) == Kept(chat(text))
    assert pii(chat(text), PiiConfig(private_ips=True)).record == chat("ssh [IP], then [IP]")


def test_all_texts_of_a_record_are_searched_and_told():
    texts = "a@b.cn, 13812345678"
    masked = "[EMAIL], [PHONE]"
    for record, clean in (
        (chat("x", texts), chat("x", masked)),
        (pair("x", texts), pair("x", masked)),
        (ask("x", texts), ask("x", masked)),
        (Document(texts), Document(masked)),
    ):
        assert pii(record, PiiConfig()) == Kept(clean, "email, phone")
        assert pii(record, PiiConfig(phone="drop")) == Dropped("holds phone")
        assert isinstance(pii(record, DROP), Dropped)


@given(RECORDS)
def test_masking_twice_is_masking_once(record):
    config = PiiConfig(address="mask", private_ips=True)
    once = pii(record, config)
    assert pii(once.record, config) == Kept(once.record)
    assert isinstance(pii(record, DROP), Kept | Dropped)
