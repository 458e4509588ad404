"""How near SFT comes to the rate of its own matrix products; in one run, on the rows of `sft-packed`.

    python bench/rows.py sft && OMP_NUM_THREADS=2 python bench/rates.py

One step of the real trainer is watched and every matrix product noted with its shapes, layout and dtype. After the
timed steps each is timed alone. Their mean rate, weighted by their operations (harmonic: all operations over all
seconds), is what a step of nothing but products would reach. Beside it stands the rate of the whole step, for the
operations that the model needs: 6 for each weight and token (of the head: for each trained token), and causal
attention, half of the square. What is computed twice (logits, in the backward pass) or for nothing (padding, the masked
half) does not count.
"""

import argparse
import json
import math
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from compare import BENCH, environment
from rows import config_of, steps_of
from torch.utils._python_dispatch import TorchDispatchMode

from fairlead.models.loading import config_in
from fairlead.train.sft import train_sft
from fairlead.train.stage import Stage

WANTED = 0.55
SECONDS, REPEATS = 0.1, 4  # of repeating a product
WATCHED = 3  # steps before it bring the memory
PRODUCTS = (torch.ops.aten.mm.default, torch.ops.aten.bmm.default)


class Product(NamedTuple):
    """A matrix product: shape and strides of both sides."""

    left: tuple[tuple[int, ...], tuple[int, ...]]
    right: tuple[tuple[int, ...], tuple[int, ...]]
    dtype: torch.dtype

    @property
    def flops(self) -> int:
        """Operations."""
        return 2 * math.prod(self.left[0]) * self.right[0][-1]

    def seconds(self) -> float:
        """Time of one, repeated alone; the best of several, so that no neighbour's load lowers the ceiling."""
        left, right = (torch.empty_strided(*side, dtype=self.dtype).normal_() for side in (self.left, self.right))
        torch.matmul(left, right)
        return min(_mean_seconds(lambda: torch.matmul(left, right)) for _ in range(REPEATS))


class Watch(TorchDispatchMode):
    """Counts the products that run."""

    def __init__(self) -> None:
        super().__init__()
        self.products: Counter[Product] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: Any = None) -> Any:
        if func in PRODUCTS:
            left, right = args
            self.products[Product((left.shape, left.stride()), (right.shape, right.stride()), left.dtype)] += 1
        return func(*args, **(kwargs or {}))


def _mean_seconds(work: Callable[[], object]) -> float:
    start, count = time.perf_counter(), 0
    while time.perf_counter() - start < SECONDS:
        work()
        count += 1
    return (time.perf_counter() - start) / count


def main() -> None:
    """Train, time, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=BENCH / "results")
    output = parser.parse_args().output
    about, watch, seconds = steps_of("sft"), Watch(), []
    record = Stage.record
    clock = time.perf_counter()

    def record_and_watch(stage: Stage, step: int, metrics: Mapping[str, float], **counts: Any) -> None:
        nonlocal clock
        if step == WATCHED:
            watch.__exit__(None, None, None)
        seconds.append(time.perf_counter() - clock)
        record(stage, step, metrics, **counts)
        if step == WATCHED - 1:
            watch.__enter__()
        clock = time.perf_counter()

    Stage.record = record_and_watch
    with tempfile.TemporaryDirectory() as folder:
        train_sft(config_of("sft", "sft", folder))
    Stage.record = record

    alone = {product: product.seconds() for product in watch.products}
    flops = sum(product.flops * count for product, count in watch.products.items())
    in_products = sum(alone[product] * count for product, count in watch.products.items())
    ceiling = flops / in_products
    timed = list(zip(about["steps"], seconds, strict=True))[WATCHED:]
    rates = [model_flops(step, about["model"]) / took for step, took in timed]
    rate = statistics.median(rates)
    rows = [
        {
            "left": product.left, "right": product.right, "count": count, "gflops": product.flops * count / 1e9,
            "gflops_per_second": product.flops / alone[product] / 1e9, "seconds": alone[product] * count,
        }
        for product, count in sorted(watch.products.items(), key=lambda item: -alone[item[0]] * item[1])
    ]  # fmt: skip
    print("  seconds  GFLOP/s  times  product")
    for row in rows:
        shapes = " x ".join(str(list(row[side][0])) for side in ("left", "right"))
        print(f"{row['seconds']:9.3f}{row['gflops_per_second']:9.0f}{row['count']:7}  {shapes}")
    print(f"products alone: {flops / 1e9:,.0f} GFLOP in {in_products:.2f} s, {ceiling / 1e9:.0f} GFLOP/s")
    print(f"step: {rate / 1e9:.0f} GFLOP/s, {rate / ceiling:.1%} (wanted {WANTED:.0%})")
    result = {
        "work": "rates", "wanted": WANTED, "share": {"median": rate / ceiling, "all": [r / ceiling for r in rates]},
        "model_flops_per_second": rates, "products_flops_per_second": ceiling, "products": rows,
        "step_seconds": seconds, "environment": environment(),
    }  # fmt: skip
    output.mkdir(parents=True, exist_ok=True)
    (output / f"{result['environment']['date']}-rates.json").write_text(json.dumps(result, indent=1) + "\n")


def model_flops(step: Mapping[str, Any], model: str) -> float:
    """Operations that one step on these rows needs, forward and backward, of a Llama."""
    config = config_in(Path(model))
    width, inner = config.hidden_size, config.intermediate_size
    heads = config.num_attention_heads * config.head_dim
    keys = config.num_key_value_heads * config.head_dim
    layer = 2 * width * heads + 2 * width * keys + 3 * width * inner
    lengths = [len(row["input_ids"]) for row in step["examples"]]
    trained = sum(sum(row["trained"][1:]) for row in step["examples"])
    weights = 6.0 * (config.num_hidden_layers * layer * sum(lengths) + config.vocab_size * width * trained)
    return weights + 6.0 * config.num_hidden_layers * heads * sum(length**2 for length in lengths)


if __name__ == "__main__":
    main()
