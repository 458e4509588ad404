"""One process with 8 micro-batches, 1 micro-batch, and two ranks with 4 each, replicated and FSDP2: one result.

Every comparison runs the real trainers on a tiny model in float32. Adam's eps is 1e-3 here: with 1e-8 the first update
is the sign of the gradient, and an entry whose gradient is rounding noise would move by the whole learning rate.
"""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import orjson
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from fairlead.artifacts.stages import stage_folder
from tiny import write_conversations, write_preferences, write_ranked
from tiny_stages import ROWS_OF, write_rows

from .driver import run

STAGES = ("sft", "reward", "dpo", "kto", "ppo", "grpo")
ROWS = 11  # rows of a step: 8 micro-batches; the second step has 5, so one rank of two runs an idle micro-batch
pytestmark = pytest.mark.timeout(1800)  # the whole matrix trains about 200 stages before its first test
LAYOUTS = ("1x1", "replicated", "fsdp", "replicated-resumed", "fsdp-resumed")

# With 3 one token of a ppo case falls on the edge of two neighbouring ones, which layouts round to different sides.
SEEDS = {"ppo": 5}


class Case(NamedTuple):
    """A stage trained in one layout; `checkpointed` recomputes activations."""

    layout: str
    stage: str
    tuning: str
    family: str = "llama"
    checkpointed: bool = False


QUICK = [
    Case("1x1", "sft", "full"), Case("replicated", "sft", "full"), Case("fsdp", "sft", "full"),
    Case("fsdp", "reward", "full"), Case("replicated", "dpo", "lora"), Case("fsdp", "dpo", "lora"),
    Case("replicated", "ppo", "lora"), Case("fsdp", "ppo", "lora"), Case("fsdp-resumed", "ppo", "lora"),
    Case("replicated", "kto", "lora"), Case("fsdp", "kto", "full"), Case("replicated", "grpo", "lora"),
    Case("fsdp", "grpo", "full"),
]  # fmt: skip
WHOLE = [Case(layout, stage, tuning) for layout in LAYOUTS for stage in STAGES for tuning in ("lora", "full")]
WHOLE += [
    Case(layout, stage, tuning, family, checkpointed=family in ("llama", "gpt2"))
    for family in ("llama", "llama-untied", "gpt2", "opt", "mistral", "bloom")
    for layout in ("replicated", "fsdp")
    for stage, tuning in (("sft", "full"), ("reward", "full"), ("ppo", "lora"), ("ppo", "full"))
]
CASES = list(dict.fromkeys(QUICK + WHOLE))


class Laboratory:
    """Rows, tiny models and their sft and reward stages, from which every case starts."""

    def __init__(self, folder: Path, tiny: Callable[[str], Path]) -> None:
        self.folder, self.tiny = folder, tiny
        self.conversations = write_conversations(folder / "conversations.jsonl", 16)
        self.preferences = write_preferences(folder / "preferences.jsonl", 16)
        self.ranked = write_ranked(folder / "ranked.jsonl", 16)
        rows = [orjson.loads(line) | {"label": i % 3 > 0} for i, line in enumerate(self.conversations.open())]
        self.judgements = write_rows(folder / "judgements.jsonl", rows)

    def output(self, case: Case) -> Path:
        """The run folder of a case; its stage folder lies inside."""
        return self.folder / "-".join(str(value) for value in case)

    def result(self, case: Case) -> Path:
        return stage_folder(self.output(case), case.stage)

    def parent(self, case: Case, stage: str) -> Case:
        return Case("parent", stage, case.tuning, case.family)

    def job(self, case: Case) -> dict[str, Any]:
        first = case.layout == "parent" or case.stage in ("sft", "reward")
        start = self.tiny(case.family) if first else self.result(self.parent(case, "sft"))
        rows = self.ranked if case.stage == "reward" else getattr(self, ROWS_OF.get(case.stage, "conversations"))
        # Two ranks share 7 of ppo's as 4 and 3, so that one runs an idle one in every step of policy and critic.
        most = 7 if case.stage in ("ppo", "grpo") and not case.checkpointed else 8
        micro_batches = 1 if case.layout == "1x1" else most
        config: dict[str, Any] = {
            "output": str(self.output(case)),
            "model": {"name": str(start), "tuning": case.tuning, "lora": {"rank": 4},
                      "activation_checkpointing": case.checkpointed},
            "data": {"train": [str(rows)]},
            "batch": {"num_micro_batches": micro_batches, "micro_batch_tokens": 100_000},
            "optim": {"lr": 1e-2, "schedule": "constant", "eps": 1e-3, "max_grad_norm": 0.5, "weight_decay": 0.1},
            "runtime": {"device": "cpu", "dtype": "float32", "num_threads": 1,
                        "seed": 7 if case.layout == "parent" else SEEDS.get(case.stage, 3),
                        "distributed": "fsdp" if case.layout.startswith("fsdp") else "replicated"},
        }  # fmt: skip
        if case.stage == "ppo":
            config |= {
                "reward_model": str(self.result(self.parent(case, "reward"))), "num_iterations": 2, "num_epochs": 1,
                "prompts_per_iteration": ROWS, "mini_batch_size": ROWS, "ptx_coef": 0.3, "ptx_rows": 8,
                "ptx_data": [str(self.conversations)], "sampling": {"max_new_tokens": 10, "temperature": 0.9},
            }  # fmt: skip
        elif case.stage == "grpo":
            config |= {
                "reward_model": str(self.result(self.parent(case, "reward"))), "num_iterations": 2,
                "prompts_per_iteration": 3, "num_responses_per_prompt": 5, "mini_batch_size": 15,
                "aggregation": "response_mean", "sampling": {"max_new_tokens": 10, "temperature": 0.9},
            }  # fmt: skip
        else:
            config |= {"num_epochs": 1}
            config["data"] |= {"held_out_rows": 0}
            config["batch"] |= {"rows": ROWS}
            config |= {"normalise_head": True, "margin_per_score": 0.3} if case.stage == "reward" else {}
        return {"stage": case.stage, "config": config, "interrupt": case.layout.endswith("-resumed")}

    def run(self, cases: list[Case]) -> None:
        """What all these cases need: parents, the 1x8 twins, and the cases themselves under one torchrun."""
        parents = [
            self.parent(c, s)
            for c in cases
            for s in ("sft", "reward")
            if c.stage in ("ppo", "grpo") or (c.stage in ("dpo", "kto") and s == "sft")
        ]
        alone = [case for case in cases if case.layout == "1x1"]
        twins = [case._replace(layout="1x8") for case in cases]
        run([self.job(case) for case in dict.fromkeys(parents + twins + alone)])
        self.torchrun([self.job(case) for case in cases if case.layout != "1x1"])

    def torchrun(self, jobs: list[dict[str, Any]]) -> None:
        path = self.folder / "jobs.json"
        path.write_bytes(orjson.dumps(jobs))
        driver = Path(__file__).with_name("driver.py")
        words = [
            sys.executable,
            "-m",
            "torch.distributed.run",
            "--standalone",
            "--nproc-per-node",
            "2",
            str(driver),
            str(path),
        ]
        environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=1500, check=False)
        assert done.returncode == 0, done.stderr[-6000:]


@pytest.fixture(scope="module")
def laboratory(
    request: pytest.FixtureRequest, tiny: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory
) -> Laboratory:
    """Everything the selected tests of this file need, trained at once: processes start slowly."""
    lab = Laboratory(tmp_path_factory.mktemp("ranks"), tiny)
    chosen = [
        item.callspec.params["case"]
        for item in request.session.items
        if "laboratory" in item.fixturenames and hasattr(item, "callspec")
    ]
    lab.run(list(dict.fromkeys([*chosen, QUICK[0]])))
    return lab


def metrics(stage: Path) -> list[dict[str, float]]:
    return [orjson.loads(line) for line in (stage / "metrics.jsonl").read_bytes().splitlines()]


def weights(stage: Path) -> Iterator[tuple[str, Tensor]]:
    for part in ("model", "critic"):
        for file in sorted((stage / part).glob("*.safetensors")):
            yield from ((f"{part}/{name}", tensor) for name, tensor in sorted(load_file(file).items()))


@pytest.mark.parametrize(
    "case", [pytest.param(c, marks=[] if c in QUICK else pytest.mark.slow, id="-".join(map(str, c))) for c in CASES]
)
def test_any_layout_trains_the_same_model(laboratory: Laboratory, case: Case) -> None:
    found, expected = laboratory.result(case), laboratory.result(case._replace(layout="1x8"))
    assert orjson.loads((found / "manifest.json").read_bytes())["world_size"] == (1 if case.layout == "1x1" else 2)
    ours, theirs = metrics(found), metrics(expected)
    assert len(ours) == len(theirs) == 2
    for one, other in zip(ours, theirs, strict=True):
        assert one.keys() == other.keys()
        sums = one.keys() - {"flops", "explained_variance", "sampler_gap", "kl_old_new"}  # differences of rounding
        assert [one[key] for key in sums] == pytest.approx([other[key] for key in sums], rel=2e-5, abs=2e-6), sums
    one, other = dict(weights(found)), dict(weights(expected))
    assert one.keys() == other.keys()
    for name, tensor in other.items():
        torch.testing.assert_close(one[name], tensor, rtol=1e-5, atol=2e-6, msg=lambda m, n=name: f"{n}: {m}")


def test_the_cases_can_tell_two_models_apart(laboratory: Laboratory) -> None:
    """Two steps move weights by far more than the tolerance above."""
    case = QUICK[0]
    before = load_file(laboratory.tiny(case.family) / "model.safetensors")
    after = load_file(laboratory.result(case) / "model" / "model.safetensors")
    assert before.keys() == after.keys()
    assert all((after[name] - before[name]).abs().max() > 1e-3 for name in before)
