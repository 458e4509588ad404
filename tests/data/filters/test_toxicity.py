"""Word lists."""

import pytest
from hypothesis import given

from fairlead.config.filters import FiltersConfig, ToxicityConfig
from fairlead.data.filters.outcome import Dropped, Kept
from fairlead.data.filters.steps import steps_of
from fairlead.data.filters.toxicity import toxicity
from fairlead.errors import ExitCode, UserError
from fairlead.records import Document
from tests.data.filters.rows import CLEAN, RECORDS, ask, chat, pair

BUILT_IN = ToxicityConfig(built_in=True)


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("You asshole!", "asshole"),
        ("FUCK this", "fuck"),
        ("Go and kill  yourself.", "kill yourself"),
        ("你这个傻逼", "傻逼"),
    ],
)
def test_the_built_in_list(text, word):
    assert toxicity(chat(text), BUILT_IN) == Dropped(f"holds the word {word!r}")
    assert toxicity(Document(text), BUILT_IN) == Dropped(f"holds the word {word!r}")
    assert toxicity(ask(text), BUILT_IN) == Dropped(f"holds the word {word!r}")


@pytest.mark.parametrize(
    "text",
    [*CLEAN, "Scunthorpe", "a Dickens novel", "assessment", "Kill your darlings yourself", "我妈的生日", "体操你会吗"],
)
def test_whole_words_alone_count(text):
    assert toxicity(chat(text), BUILT_IN) == Kept(chat(text))


def test_own_words(tmp_path):
    file = tmp_path / "words.txt"
    file.write_text("\ufeff# mine\nBrussels  sprouts\n香菜\n\nbroccoli\nf*dge\n", "utf-8")
    config = ToxicityConfig(files=(str(file),))
    assert toxicity(chat("I hate BROCCOLI."), config) == Dropped("holds the word 'broccoli'")
    assert toxicity(chat("brussels-sprouts"), config) == Dropped("holds the word 'brussels sprouts'")
    assert toxicity(chat("不要放香菜啊"), config) == Dropped("holds the word '香菜'")
    assert toxicity(chat("oh f*dge"), config) == Dropped("holds the word 'f dge'")
    assert toxicity(chat("broccolini, # mine"), config) == Kept(chat("broccolini, # mine"))
    assert toxicity(chat("You asshole"), config) == Kept(chat("You asshole")), "the built-in list is off"


def test_where_to_look():
    everywhere = ToxicityConfig(built_in=True, where="everywhere")
    for record in (chat("fine", "傻逼"), pair("fine", "傻逼")):
        assert toxicity(record, BUILT_IN) == Kept(record)
        assert toxicity(record, everywhere) == Dropped("holds the word '傻逼'")


def test_off_unless_there_is_a_list_and_wrong_files_are_named_at_once(tmp_path):
    assert "toxicity" not in steps_of(FiltersConfig())
    assert "toxicity" in steps_of(FiltersConfig(toxicity=BUILT_IN))
    comments, foreign = tmp_path / "a.txt", tmp_path / "b.txt"
    comments.write_text("# nothing\n")
    foreign.write_bytes("垃圾".encode("gb18030"))
    for file, says, code in (
        (tmp_path / "none.txt", "cannot be read", ExitCode.MISSING_INPUT),
        (comments, "has no word", ExitCode.BAD_DATA),
        (foreign, "not UTF-8", ExitCode.BAD_DATA),
    ):
        with pytest.raises(UserError, match=says) as caught:
            steps_of(FiltersConfig(toxicity=ToxicityConfig(files=(str(file),))))
        assert (caught.value.exit_code, str(file) in str(caught.value)) == (code, True)


@given(RECORDS)
def test_no_text_is_too_odd(record):
    assert isinstance(toxicity(record, ToxicityConfig(built_in=True, where="everywhere")), Kept | Dropped)
