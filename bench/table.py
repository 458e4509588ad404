"""The newest result of every work, as docs/speed.md and the picture beside it.

python bench/table.py
"""

import json
from typing import Any

from compare import BENCH
from matplotlib.figure import Figure
from works import WORKS

DOCS = BENCH.parent / "docs"
OPENING = """# Speed

fairlead and a peer in turn, A B A B, in two living processes on the same rows, with the same threads and dtype; the
ratio of each alternation, then the median. SmolLM2-135M-Instruct, bfloat16 on both sides. `make bench` measures three
works in 20 minutes on your machine, `make bench-full` all of them; what is equal and what is not stands at the head of
the scripts in `bench/sides/`. This page is made from `bench/results/` by `python bench/table.py`.

![Ratios to peers, with the least wanted](speed.svg)
"""


DEDUP = """
## Near-duplicates

fairlead verifies each pair by its true similarity. {scale}

![CPU time and memory against documents](dedup.svg)
"""
HEAD = ["| work | against | fairlead | peer | ratio | wanted | peak memory | machine |", "|---" * 8 + "|"]


def newest(name: str) -> dict[str, Any] | None:
    """The last result of a work; its files begin with their date."""
    found = sorted(path for path in (BENCH / "results").glob("*.json") if path.stem[11:] == name)
    return json.loads(found[-1].read_text()) if found else None


def main() -> None:
    """Write the page and its picture."""
    found = {name: result for name in WORKS if (result := newest(name))}
    apart = {name: result for name, result in found.items() if name.startswith("dedup")}  # would dwarf the others' bars
    results = {name: result for name, result in found.items() if name not in apart}
    lines = [OPENING, *HEAD, *(_line(name, result) for name, result in results.items())]
    lines += ["", *_others(), *_on_a_gpu(), *_near_duplicates(apart)]
    (DOCS / "speed.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    draw(results)


def _line(name: str, result: dict[str, Any]) -> str:
    ratio, memory = result["ratio"], result.get("memory")
    machine = f"{result['environment']['cpu']}, {result['environment']['threads']} threads"
    peak = f"{memory['ratio']:.2f} of the peer's" if memory else ""
    own, other = result["fairlead"], result["peer"]
    return (
        f"| `{name}`: {WORKS[name].what} | {other['name']} | {own['rate']:.1f} {result['unit']} "
        f"| {other['rate']:.1f} | {ratio['median']:.2f} ({ratio['least']:.2f} to {ratio['greatest']:.2f}) "
        f"| {result['wanted']} | {peak} | {machine} |"
    )


def _others() -> list[str]:
    """What is no pair of rates."""
    lines = []
    if rollout := newest("rollout"):
        shares = sorted(measured["share_of_bound"] for measured in rollout["fairlead"]["rounds"][1:])
        lines.append(
            f"- Rollouts reach {shares[len(shares) // 2]:.0%} of what decode steps alone would make at the mean batch "
            "and context, without reading prompts and without sampling (wanted 70 %)."
        )
    if rates := newest("rates"):
        lines.append(
            f"- SFT reaches {rates['share']['median']:.0%} of the rate of its own matrix products, each timed alone "
            f"({rates['products_flops_per_second'] / 1e9:.0f} GFLOP/s; wanted {rates['wanted']:.0%})."
        )
    if memory := newest("ppo-memory"):
        lines.append(
            f"- PPO with four roles takes {memory['ratio']:.2f} times the peak memory of SFT, both with LoRA (wanted "
            f"at most {memory['wanted']})."
        )
    if newest("scaling"):
        lines += ["- Cost against the length of a sequence and against rows:", "", "![Cost of a step](scaling.svg)"]
    return lines


def _on_a_gpu() -> list[str]:
    """What was measured on a GPU."""
    found = {name: result for name in WORKS if (result := newest(f"{name}-cuda"))}
    if not found:
        return []
    lines = ["", "On a GPU, random weights of the same shape:", ""]
    lines += ["| work | against | ratio | peak memory | machine |", "|---" * 5 + "|"]
    for name, result in found.items():
        ratio = f"{result['ratio']['median']:.2f} ({result['ratio']['least']:.2f} to {result['ratio']['greatest']:.2f})"
        peak = f"{result['memory']['ratio']:.2f} of the peer's"
        lines.append(f"| `{name}` | {result['peer']['name']} | {ratio} | {peak} | {result['environment']['gpu']} |")
    return lines


def _near_duplicates(results: dict[str, dict[str, Any]]) -> list[str]:
    """A section of its own: ratios to peers, and the cost of many documents."""
    scale = newest("dedup-scale")
    if not results or not scale:
        return []
    most = scale["rows"][-1]
    told = (
        f"{most['documents']:,} documents, read back from shards, take {most['sketch_seconds']:.0f} CPU seconds to "
        f"sketch, {most['compare_seconds']:.0f} to compare, and {most['peak_bytes'] / 1e6:.0f} MB "
        f"({scale['wanted_bytes'] / 1e9:.0f} GB were allowed)."
    )
    return [DEDUP.format(scale=told), *HEAD, *(_line(name, result) for name, result in results.items())]


def draw(results: dict[str, dict[str, Any]]) -> None:
    """A bar for each ratio, a mark where it was wanted to be."""
    figure = Figure(figsize=(8, 0.45 * len(results) + 0.9), layout="constrained")
    axes = figure.subplots()
    names = list(results)
    medians = [results[name]["ratio"]["median"] for name in names]
    spread = [
        [median - results[name]["ratio"]["least"] for name, median in zip(names, medians, strict=True)],
        [results[name]["ratio"]["greatest"] - median for name, median in zip(names, medians, strict=True)],
    ]
    axes.barh(names, medians, xerr=spread, color="#4477aa", ecolor="#222222", height=0.6)
    axes.plot([results[name]["wanted"] for name in names], names, "|", color="#cc3311", markersize=18, label="wanted")
    axes.axvline(1.0, color="#888888", linewidth=0.8)
    axes.invert_yaxis()
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_xlabel("times as fast as the peer")
    axes.legend(frameon=False, loc="lower right")
    figure.savefig(DOCS / "speed.svg", metadata={"Date": None})


if __name__ == "__main__":
    main()
