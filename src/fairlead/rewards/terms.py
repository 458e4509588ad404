"""What a response is rewarded for: a weighted sum of named terms."""

import importlib.util
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from fairlead.artifacts.hashing import sha256_file
from fairlead.config.terms import Term
from fairlead.errors import ExitCode, UserError
from fairlead.rewards.verifiers import answer_format, exact_match, maths_answer

Function = Callable[[str, str, str], float]
"""(prompt, response, reference answer) -> number: what a user's own function looks like."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One response as a verifier sees it. Lengths in tokens."""

    prompt: str
    response: str
    answer: str
    num_tokens: int


def load_function(term: Term) -> tuple[Function, str]:
    """A user's own function and the sha256 of its file. It runs with all rights of this process, as any code of theirs.

    Raises UserError: 66 when the file or the function is not there, 65 when the file cannot be run.
    """
    path = term.file
    assert path is not None
    name = term.name.rpartition(":")[2]
    if not path.is_file():
        raise UserError(
            "there is no such file", where=str(path), want="a Python file with your reward function",
            fix="check the path", exit_code=ExitCode.MISSING_INPUT,
        )  # fmt: skip
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise UserError(
            "this file cannot be run", where=str(path), got=f"{type(error).__name__}: {error}", fix="mend it",
            exit_code=ExitCode.BAD_DATA,
        ) from error  # fmt: skip
    function = getattr(module, name, None)
    if not callable(function):
        raise UserError(
            f"this file has no function {name}", where=str(path),
            want=f"def {name}(prompt: str, response: str, answer: str) -> float", fix="check the name",
            exit_code=ExitCode.MISSING_INPUT,
        )  # fmt: skip
    return function, sha256_file(path)


def load_functions(terms: Sequence[Term]) -> tuple[dict[str, Function], dict[str, str]]:
    """The user's own functions by the name of their term, and the digests of their files by path."""
    loaded = {term.name: (*load_function(term), str(term.file)) for term in terms if term.file is not None}
    functions = {name: function for name, (function, _, _) in loaded.items()}
    return functions, {file: digest for _, digest, file in loaded.values()}


def rule_scores(
    term: Term, samples: Sequence[Sample], *, pattern: str, max_tokens: int, function: Function | None = None
) -> list[float]:
    """What a verifier, the length penalty or a user's `function` gives each response, before the weight.

    `length` is minus the share of the tokens that a response might have used.
    """
    match term.name:
        case "exact_match":
            return [exact_match(s.response, s.answer, pattern=pattern) for s in samples]
        case "maths_answer":
            return [maths_answer(s.response, s.answer, pattern=pattern) for s in samples]
        case "format":
            return [answer_format(s.response, pattern=pattern) for s in samples]
        case "length":
            return [-s.num_tokens / max_tokens for s in samples]
        case _:
            assert function is not None
            return [_called(function, term, s) for s in samples]


def _called(function: Function, term: Term, sample: Sample) -> float:
    try:
        found = function(sample.prompt, sample.response, sample.answer)
        score = math.nan if isinstance(found, str) else float(found)
    except Exception as error:
        raise UserError(
            "your reward function failed", where=term.name, got=f"{type(error).__name__}: {error}",
            fix=f"mend it for the response {sample.response[:80]!r}", exit_code=ExitCode.BAD_DATA,
        ) from error  # fmt: skip
    if not math.isfinite(score):
        raise UserError(
            "your reward function gave no finite number", where=term.name, got=repr(found),
            fix=f"mend it for the response {sample.response[:80]!r}", exit_code=ExitCode.BAD_DATA,
        )  # fmt: skip
    return score
