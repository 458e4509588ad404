"""What a token of training costs against the length of its sequence, and a step against its rows.

    OMP_NUM_THREADS=2 python bench/scaling.py      # writes bench/results/DATE-scaling.json and docs/scaling.svg

A forward and a backward pass over SmolLM2-135M-Instruct, all weights trained, bfloat16, random tokens, half of them
targets. First 4,096 tokens as sequences of 256 to 4,096, then 1 to 16 sequences of 256. Cost should be linear in tokens
but for attention, whose products alone grow with the length; their share of the operations is printed beside.
"""

import json
import statistics
import time
from pathlib import Path
from typing import Any

import torch
from compare import BENCH, environment
from matplotlib.figure import Figure

from fairlead.batches import PackedBatch
from fairlead.config.common import ModelConfig, RuntimeConfig
from fairlead.data.collate import collate
from fairlead.data.examples import Example
from fairlead.models.build import add_trainable, ready
from fairlead.models.loading import config_in
from fairlead.models.roles import Roles
from fairlead.models.sources import resolve
from fairlead.runtime.start import start

TOKENS = 4096
LENGTHS = (256, 512, 1024, 2048, 4096)
ROWS = (1, 2, 4, 8, 16)
ROW = 256
REPEATS = 3
PICTURE = Path(__file__).parent.parent / "docs" / "scaling.svg"


def main() -> None:
    """Measure, write, draw."""
    runtime = start(RuntimeConfig(device="cpu", dtype="bfloat16"))
    source, model = resolve(ModelConfig().name), ModelConfig(tuning="full")
    roles = Roles()
    add_trainable(roles, "policy", source, "logprobs", model, runtime, dropout=0.0)
    ready(roles, model, runtime)
    config = config_in(source.base.folder)
    weights = sum(parameter.numel() for parameter in roles.causal_lm("policy").parameters())
    step(roles, ROW, 1)
    by_length = [
        {
            "length": length,
            "seconds": median(roles, length, TOKENS // length),
            "attention": share(config, weights, length),
        }
        for length in LENGTHS
    ]
    by_rows = [{"rows": rows, "seconds": median(roles, ROW, rows)} for rows in ROWS]
    result = {"work": "scaling", "by_length": by_length, "by_rows": by_rows, "environment": environment()}
    for line in by_length:
        times = line["seconds"] / by_length[0]["seconds"]
        work = f"{line['seconds']:.1f} s, {times:.2f} times the first; attention {line['attention']:.0%} of the work"
        print(f"{TOKENS} tokens in sequences of {line['length']}: {work}")
    for line in by_rows:
        per_row, first = line["seconds"] / line["rows"], by_rows[0]["seconds"]
        print(f"{line['rows']} rows of {ROW}: {per_row:.2f} s a row, {per_row / first:.2f} times the first")
    path = BENCH / "results" / f"{result['environment']['date']}-scaling.json"
    path.write_text(json.dumps(result, indent=1) + "\n")
    draw(by_length, by_rows)


def median(roles: Roles, length: int, rows: int) -> float:
    """Seconds of a step, the median of several."""
    return statistics.median(step(roles, length, rows) for _ in range(REPEATS))


def step(roles: Roles, length: int, rows: int) -> float:
    """Seconds of one forward and backward pass."""
    batch = batch_of(length, rows)
    began = time.perf_counter()
    roles(batch, "policy").logprobs.sum().backward()
    roles.zero_grad()
    return time.perf_counter() - began


def batch_of(length: int, rows: int) -> PackedBatch:
    """Random tokens; the second half of each sequence is trained."""
    ids = torch.randint(0, 1000, (rows, length)).tolist()
    trained = (False,) * (length // 2) + (True,) * (length - length // 2)
    return collate([Example(tuple(row), trained, "") for row in ids])


def share(config: Any, weights: int, length: int) -> float:
    """Causal attention's part of a step's operations: 6 for each weight and token, 6 T D for each token and layer."""
    attention = 6 * config.num_hidden_layers * length * config.num_attention_heads * config.head_dim
    return attention / (attention + 6 * weights)


def draw(by_length: list[dict[str, Any]], by_rows: list[dict[str, Any]]) -> None:
    """Both lines, beside what linear cost would be."""
    figure = Figure(figsize=(9, 3.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    lengths = [line["length"] for line in by_length]
    first = by_length[0]["seconds"] * (1 - by_length[0]["attention"])
    left.plot(lengths, [line["seconds"] for line in by_length], "o-", label="measured")
    left.plot(
        lengths, [first / (1 - line["attention"]) for line in by_length], "--", label="operations, attention added"
    )
    left.set(xscale="log", xlabel="tokens of a sequence", ylabel=f"seconds for {TOKENS} tokens", ylim=(0, None))
    left.set_xticks(lengths, map(str, lengths))
    rows = [line["rows"] for line in by_rows]
    right.plot(rows, [line["seconds"] for line in by_rows], "o-", label="measured")
    right.plot(rows, [by_rows[-1]["seconds"] / rows[-1] * count for count in rows], "--", label="linear")
    right.set(xlabel=f"rows of {ROW} tokens", ylabel="seconds", ylim=(0, None), xlim=(0, None))
    for axes in (left, right):
        axes.minorticks_off()
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False)
    figure.savefig(PICTURE, metadata={"Date": None})


if __name__ == "__main__":
    main()
