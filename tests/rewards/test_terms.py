import math

import pytest

from fairlead.config.terms import parse_term
from fairlead.errors import ExitCode, UserError
from fairlead.rewards.terms import Sample, load_function, rule_scores

SAMPLES = [Sample("2+2?", "Answer: 4", "4", 6), Sample("2+2?", "Answer: 5", "4", 3)]


def scores(text, function=None):
    return rule_scores(parse_term(text), SAMPLES, pattern=r"Answer: (\d+)", max_tokens=12, function=function)


@pytest.mark.parametrize(
    ("text", "name", "weight"),
    [("format", "format", 1.0), ("0.2*format", "format", 0.2), (" -1e-1 * length ", "length", -0.1),
     ("2*rules.py:brevity", "rules.py:brevity", 2.0)],
)  # fmt: skip
def test_a_term_is_a_name_with_a_weight(text, name, weight):
    term = parse_term(text)
    assert (term.name, term.weight) == (name, weight)
    assert (str(term.file) if term.file else "") == ("rules.py" if "rules" in name else "")


@pytest.mark.parametrize("text", ["", "nonsense", "rules.py", "rules.txt:f", "*format", "rules.py:"])
def test_what_is_no_term(text):
    with pytest.raises(ValueError, match="is no reward"):
        parse_term(text)


def test_rules_score_every_response():
    assert scores("maths_answer") == scores("exact_match") == [1.0, 0.0]
    assert scores("format") == [1.0, 1.0]
    assert scores("length") == [-0.5, -0.25]


def test_a_function_of_the_user(tmp_path):
    file = tmp_path / "rules.py"
    file.write_text("def shorter(prompt, response, answer):\n    return -len(response) + (prompt == '2+2?')\n")
    function, digest = load_function(parse_term(f"{file}:shorter"))
    assert scores(f"{file}:shorter", function) == [-8.0, -8.0]
    file.write_text("def shorter(prompt, response, answer):\n    return 0\n")
    assert load_function(parse_term(f"{file}:shorter"))[1] != digest


@pytest.mark.parametrize(
    ("text", "code", "says"),
    [
        (None, ExitCode.MISSING_INPUT, "there is no such file"), ("x = 1", ExitCode.MISSING_INPUT, "no function f"),
        ("f = 1", ExitCode.MISSING_INPUT, "no function f"), ("import nothing_here", ExitCode.BAD_DATA, "cannot be run"),
        ("def f(", ExitCode.BAD_DATA, "SyntaxError"),
    ],
)  # fmt: skip
def test_files_that_cannot_be_used(tmp_path, text, code, says):
    file = tmp_path / "rules.py"
    if text is not None:
        file.write_text(text)
    with pytest.raises(UserError, match=says) as caught:
        load_function(parse_term(f"{file}:f"))
    assert caught.value.exit_code == code
    assert str(file) in str(caught.value)


def failing(*_):
    raise KeyError("x")


@pytest.mark.parametrize("function", [failing, lambda *_: math.nan, lambda *_: "no number"])
def test_a_function_that_fails_is_told_with_the_response(function):
    with pytest.raises(UserError, match="your reward function") as caught:
        scores("rules.py:f", function)
    assert "Answer: 4" in caught.value.fix
