"""The suite itself: fairlead passes it, its files are what the definitions give, and a wrong library is found out."""

import json
import math
import re
import subprocess
import sys
from pathlib import Path
from typing import ClassVar

import pytest
import torch

from conformance.__main__ import main
from conformance.fairlead_adapter import FairleadAdapter
from conformance.make_vectors import QUANTITIES, text_of
from conformance.suite import VECTORS, Outcome, Result, judge, load_vectors, measure
from conformance.table import RESULTS, TABLE, load_results, render

ROOT = Path(__file__).parents[2]
NAMES = sorted(load_vectors())


class Adapter:
    """Answers with what each method is told to."""

    name = "stub"
    versions: ClassVar = {"stub": "0"}

    def __init__(self, differs=None, **answers):
        self.differs = differs or {}
        for name, answer in answers.items():
            setattr(self, name, answer)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", NAMES)
def test_fairlead_passes(name, dtype):
    assert judge(FairleadAdapter(dtype), load_vectors()[name]) == Outcome("pass")


def test_the_vectors_are_those_of_the_definitions():
    written = {path.name: path.read_text(encoding="utf-8") for path in VECTORS.glob("*.json")}
    assert written == {f"{quantity.name}.json": text_of(quantity) for quantity in QUANTITIES}


@pytest.mark.parametrize("name", NAMES)
def test_a_file_explains_every_input_of_every_case(name):
    quantity = load_vectors()[name]
    assert quantity["name"] == name
    assert quantity["equation"]
    assert quantity["source"]
    for case in quantity["cases"]:
        assert case["inputs"].keys() == quantity["inputs"].keys()


@pytest.mark.parametrize(
    ("numbers", "problem"),
    [
        ([0.2, -1.0, 0.1001], "error 0.0001"),
        ([0.2, -1.0, math.nan], "nan"),
        ([0.2, -1.0], "another shape"),
        ([[0.2], [-1.0], [0.1]], "another shape"),
        ([0.2, -1.0, None], "TypeError"),
        ([True, -1.0, 0.1], "TypeError"),
    ],
)
def test_a_wrong_answer_fails(numbers, problem):
    outcome = judge(Adapter(kl_k1=lambda **_: numbers), load_vectors()["kl_k1"])
    assert outcome.status == "fails"
    assert outcome.case == "published"
    assert problem in outcome.problem


def test_rounding_passes_and_an_exception_fails():
    def broken(**_):
        raise ZeroDivisionError("by zero")

    quantity = load_vectors()["kl_k1"]
    assert judge(Adapter(kl_k1=lambda **_: [0.2000001, -0.9999999, 0.1]), quantity).status == "pass"
    assert judge(Adapter(kl_k1=broken), quantity).problem == "ZeroDivisionError: by zero"


def test_a_case_that_wants_exactly_0_takes_no_rounding():
    quantity = load_vectors()["leave_one_out"]
    right = FairleadAdapter()
    nearly = Adapter(leave_one_out=lambda **inputs: [x + 1e-12 for x in right.leave_one_out(**inputs)])
    assert judge(nearly, quantity).case == "equal scores: exactly 0"


def test_what_differs_by_design_or_is_missing_is_no_failure():
    quantity = load_vectors()["kl_k1"]
    wrong = {"kl_k1": lambda **_: [0.0, 0.0, 0.0]}
    excused = judge(Adapter(differs={"kl_k1": "for a reason"}, **wrong), quantity)
    assert (excused.status, excused.reason) == ("differs by design", "for a reason")
    assert "error" in excused.problem
    assert judge(Adapter(), quantity) == Outcome("not offered")


@pytest.mark.parametrize(
    ("quantity", "bug"),
    [
        ("shaped_rewards", lambda own, **i: [[i["scores"][0] * (t < n) for t in range(len(row))]
                                             for row, n in zip(i["logprobs"], i["lengths"], strict=True)]),
        ("whiten", lambda own, shift_mean, **i: own.whiten(shift_mean=not shift_mean, **i)),
        ("reward_log_exp", lambda own, chosen, rejected, margin: [
            math.log(1 + math.exp(r - c + margin)) for c, r in zip(chosen, rejected, strict=True)]),
        ("kl_k3", lambda own, logprobs, reference_logprobs: own.kl_k3(reference_logprobs, logprobs)),
        ("score_head_std", lambda own, width: 1 / (width + 1)),
        ("kto", lambda own, kl, **i: own.kto(kl=kl - 1e-3, **i)),
        ("sft_loss", lambda own, logprobs, trained, micro_batches: sum(
            own.sft_loss(logprobs, [row if i in rows else [False] * len(row) for i, row in enumerate(trained)], [rows])
            for rows in micro_batches if any(any(trained[i]) for i in rows)) / len(micro_batches)),
        ("k_wise", lambda own, scores: own.k_wise([[a, b] for ranked in scores for i, a in enumerate(ranked)
                                                   for b in ranked[i + 1 :]])),
        ("group_advantages_std", lambda own, scores, group_size: own.group_advantages_std(
            [s + 1e-7 * (i % 2) for i, s in enumerate(scores)], group_size)),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_a_known_bug_of_a_peer_is_found(quantity, bug):
    own = FairleadAdapter(torch.float64)
    adapter = Adapter(**{quantity: lambda **inputs: bug(own, **inputs)})
    assert judge(adapter, load_vectors()[quantity]).status == "fails"


def test_the_table_is_made_from_the_results_and_fairleads_are_those_of_the_runner():
    assert TABLE.read_text(encoding="utf-8") == render(load_results())
    assert Result.load(RESULTS / "fairlead.json").outcomes == measure(FairleadAdapter()).outcomes


def test_trls_column_is_that_of_the_runner():
    pytest.importorskip("trl")
    from conformance.trl_adapter import TrlAdapter

    assert measure(TrlAdapter()) == Result.load(RESULTS / "trl.json")


def test_every_result_speaks_of_every_vector_and_gives_a_reason_for_what_differs():
    for result in load_results():
        assert sorted(result.outcomes) == NAMES, result.adapter
        assert result.versions
        for outcome in result.outcomes.values():
            assert outcome.status != "differs by design" or outcome.reason


def test_a_saved_result_is_loaded_as_it_was_and_has_its_column(tmp_path):
    result = measure(Adapter(kl_k1=lambda **_: [0.0, 0.0, 0.0]))
    result.save(tmp_path / "stub.json")
    assert Result.load(tmp_path / "stub.json") == result
    page = render([result])
    assert "| [kl_k1](vectors/kl_k1.json) | fails (published: error 1: 0 for -1) |" in page
    assert "| **passes / offered** | 0 / 1 |" in page


def test_the_example_of_the_readme_is_measured(tmp_path):
    (code,) = re.findall(r"^```python\n(.*?)^```$", (ROOT / "conformance/README.md").read_text(), re.M | re.S)
    (tmp_path / "mine.py").write_text(code, encoding="utf-8")
    command = [sys.executable, "-m", "conformance", "--adapter", "mine:MyAdapter"]
    run = subprocess.run(
        command, cwd=ROOT, env={"PYTHONPATH": str(tmp_path)}, capture_output=True, text=True, check=False
    )
    said = dict(line.split(maxsplit=1) for line in run.stdout.splitlines())
    assert run.returncode == 1, run.stderr
    assert said["kl_k1"] == said["dpo"] == "pass"
    assert said["reward_log_exp"] == "fails  far apart: OverflowError: math range error"
    assert set(said.values()) == {"pass", "not offered", said["reward_log_exp"]}


def test_the_runner_needs_python_alone():
    code = "import sys, conformance.__main__; print([n for n in ('torch', 'fairlead', 'numpy') if n in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_the_command_measures_saves_and_writes_the_table(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr("conformance.__main__.RESULTS", tmp_path)
    monkeypatch.setattr("conformance.__main__.TABLE", tmp_path / "TABLE.md")
    name = "conformance.fairlead_adapter:FairleadAdapter"
    assert main(["--adapter", name, "--save", "again", "--table"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == len(NAMES)
    assert json.loads((tmp_path / "again.json").read_text())["adapter"] == "fairlead"
    assert (tmp_path / "TABLE.md").read_text() == TABLE.read_text()
    with pytest.raises(SystemExit):
        main([])
