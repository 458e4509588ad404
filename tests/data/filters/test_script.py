"""Traditional and Simplified Chinese."""

import sys

import pytest
from hypothesis import given

from fairlead.config.filters import FiltersConfig
from fairlead.data.filters.outcome import Kept
from fairlead.data.filters.script import converter, to_script
from fairlead.data.filters.steps import steps_of
from fairlead.errors import UserError
from tests.data.filters.rows import CHINESE, ENGLISH, RECORDS, chat


@pytest.fixture
def _opencc():
    pytest.importorskip("opencc")


@pytest.mark.usefixtures("_opencc")
def test_each_script_becomes_the_other():
    traditional, simplified = chat("漢語的頭髮後面"), chat("汉语的头发后面")
    assert to_script(traditional, "simplified") == Kept(simplified, "simplified Chinese")
    assert to_script(simplified, "traditional") == Kept(traditional, "traditional Chinese")
    assert to_script(simplified, "simplified") == Kept(simplified)
    assert to_script(chat(ENGLISH), "traditional") == Kept(chat(ENGLISH))
    assert to_script(chat(CHINESE), "simplified") == Kept(chat(CHINESE))


@pytest.mark.usefixtures("_opencc")
@pytest.mark.parametrize("script", ["simplified", "traditional"])
@given(record=RECORDS)
def test_writing_twice_is_writing_once(script, record):
    once = to_script(record, script).record
    assert to_script(once, script) == Kept(once)


def test_a_missing_package_is_named_before_any_record(monkeypatch):
    converter.cache_clear()
    monkeypatch.setitem(sys.modules, "opencc", None)
    with pytest.raises(UserError, match="pip install opencc"):
        steps_of(FiltersConfig(script="simplified"))
    assert "script" not in steps_of(FiltersConfig())
