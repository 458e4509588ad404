"""fairlead and a peer in turn: A B A B in two living processes, on the same rows, threads and dtype.

    python bench/compare.py rollout                     # one work; --alternations 5, --output FOLDER
    python bench/compare.py --list                      # what can be compared, and the least ratio wanted
    python bench/compare.py sft-packed --device cuda    # on a GPU; --model FOLDER for another model
    python bench/compare.py --install trl               # a peer's own environment, from bench/peers/trl.txt

Both processes load their model, then wait. In each alternation one does a round (the same rows as the other), then the
other; who goes first changes each time. The first alternation warms up and is not counted. The result is the median of
the ratios of one alternation with their least and greatest, the peak memory of each side after its imports, and
what both sides must agree on (losses, tokens). It is written to bench/results/DATE-WORK.json.
"""

import argparse
import datetime as dt
import json
import os
import platform
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from works import WORKS, Work

BENCH = Path(__file__).parent
ENVIRONMENTS = BENCH / ".environments"


class Process:
    """A side that runs."""

    def __init__(self, script: str, python: str, options: list[str]) -> None:
        argv = [python, str(BENCH / "sides" / script), *options]
        path = os.pathsep.join(filter(None, [str(BENCH), os.environ.get("PYTHONPATH")]))
        self._process = subprocess.Popen(
            argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": path}
        )
        self.script = script
        self.facts = self._hear()
        self.rounds: list[dict[str, Any]] = []

    def round(self) -> dict[str, Any]:
        """One round of work, alone on the machine."""
        self._tell("go")
        self.rounds.append(self._hear())
        return self.rounds[-1]

    def stop(self) -> None:
        """Let it end."""
        self._tell("stop")
        self._process.wait()

    def _tell(self, word: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(word + "\n")
        self._process.stdin.flush()

    def _hear(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            sys.exit(f"error: {self.script} ended with code {self._process.wait()}; its message stands above")
        return json.loads(line)


def compare(
    name: str, work: Work, alternations: int, *, device: str = "cpu", peer_python: str | None = None
) -> dict[str, Any]:
    """Run both sides in turn."""
    if work.prepare:
        subprocess.run([sys.executable, *(str(BENCH / work.prepare[0]), *work.prepare[1:])], check=True)
    ours = Process(work.ours, sys.executable, [*work.options, *work.ours_options])
    peer_options = work.peer_options_on_cuda or work.peer_options if device == "cuda" else work.peer_options
    peer = Process(work.peer, peer_python or python_of(work.environment), [*work.options, *peer_options])
    sides = [ours, peer]
    for number in range(alternations + 1):
        for side in sides if number % 2 == 0 else reversed(sides):
            side.round()
        own, other = ours.rounds[-1], peer.rounds[-1]
        print(
            f"{'warm-up' if number == 0 else f'alternation {number}'}: {work.unit}/s {_rate(own):.1f} against "
            f"{_rate(other):.1f}, ratio {_rate(own) / _rate(other):.2f}", flush=True,
        )  # fmt: skip
    for side in sides:
        side.stop()
    counted = list(zip(ours.rounds[1:], peer.rounds[1:], strict=True))
    ratios = [_rate(own) / _rate(other) for own, other in counted]
    return {
        "work": name, "what": work.what, "unit": f"{work.unit}/s", "wanted": work.wanted,
        "ratio": {"median": statistics.median(ratios), "least": min(ratios), "greatest": max(ratios)},
        "memory": {"ratio": _peak(ours) / _peak(peer), "wanted": work.wanted_memory},
        "fairlead": _summary(ours), "peer": {"name": work.peer_name, **_summary(peer)},
        "agree": {key: _difference(counted, key, allowed, drawn=work.drawn) for key, allowed in work.agree.items()},
        "environment": environment(device),
    }  # fmt: skip


def python_of(environment: str | None) -> str:
    """The Python of a peer's environment; None is our own."""
    if environment is None:
        return sys.executable
    python = ENVIRONMENTS / environment / "bin" / "python"
    if not python.exists():
        sys.exit(f"error: no environment for {environment}\nfix: python bench/compare.py --install {environment}")
    return str(python)


def install(environment: str) -> None:
    """Make a peer's own environment; its versions stand in bench/peers/."""
    folder = ENVIRONMENTS / environment
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    requirements = BENCH / "peers" / f"{environment}.txt"
    subprocess.run([str(folder / "bin" / "pip"), "install", "--quiet", "-r", str(requirements)], check=True)


def environment(device: str = "cpu") -> dict[str, Any]:
    """The machine; the packages are each side's facts."""
    gpu = {}
    if device == "cuda":
        import torch

        gpu = {"gpu": torch.cuda.get_device_name(), "cuda": torch.version.cuda}
    return {
        "python": platform.python_version(), "machine": platform.machine(), "cpu": _cpu(), "cores": os.cpu_count(),
        "threads": os.environ.get("OMP_NUM_THREADS", ""),
        "date": dt.datetime.now(dt.UTC).date().isoformat(), **gpu,
    }  # fmt: skip


def _cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":")[1].strip()
    return platform.processor()


def _rate(measured: dict[str, Any]) -> float:
    return measured["units"] / measured["seconds"]


def _summary(side: Process) -> dict[str, Any]:
    return {
        "facts": side.facts["ready"], "rate": statistics.median(_rate(measured) for measured in side.rounds[1:]),
        "peak_bytes": _peak(side),
        "rounds": [{key: value for key, value in measured.items() if key != "peak_bytes"} for measured in side.rounds],
    }  # fmt: skip


def _peak(side: Process) -> int:
    return max(measured["peak_bytes"] for measured in side.rounds)


def _difference(
    counted: list[tuple[dict[str, Any], dict[str, Any]]], key: str, allowed: float, *, drawn: bool
) -> dict[str, Any]:
    """How far the two sides are apart in what they must agree on, relative to the peer."""
    pairs = [(own[key], other[key]) for own, other in counted]
    if drawn:
        pairs = [(statistics.fmean(own for own, _ in pairs), statistics.fmean(other for _, other in pairs))]
    differences = [abs(own - other) / abs(other) for own, other in pairs]
    return {"greatest_difference": max(differences), "allowed": allowed, "holds": max(differences) <= allowed}


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("works", nargs="*", metavar="WORK")
    parser.add_argument("--alternations", type=int, default=5)
    parser.add_argument("--output", type=Path, default=BENCH / "results")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--model", help="folder of another model than the starter model")
    parser.add_argument("--peer-python", help="a Python that has the peer, instead of its own environment")
    parser.add_argument("--install", metavar="PEER")
    parser.add_argument("--list", action="store_true")
    arguments = parser.parse_args()
    if arguments.install:
        install(arguments.install)
    if arguments.list:
        for name, work in WORKS.items():
            print(f"{name:16} {work.what}; wanted: {work.wanted}x")
    os.environ["BENCH_DEVICE"] = arguments.device
    if arguments.model:
        os.environ["BENCH_MODEL"] = arguments.model
    where = "" if arguments.device == "cpu" else f"-{arguments.device}"
    holds = True
    for name in arguments.works:
        if name not in WORKS:
            parser.error(f"no work {name}; there are {', '.join(WORKS)}")
        result = compare(
            name, WORKS[name], arguments.alternations, device=arguments.device, peer_python=arguments.peer_python
        )
        arguments.output.mkdir(parents=True, exist_ok=True)
        path = arguments.output / f"{result['environment']['date']}-{name}{where}.json"
        path.write_text(json.dumps(result, indent=1) + "\n")
        ratio, agree = result["ratio"], result["agree"]
        spread = f"{ratio['least']:.2f} to {ratio['greatest']:.2f}"
        print(f"{name}: {ratio['median']:.2f} ({spread}), wanted {WORKS[name].wanted}")
        print(f"  peak memory: {result['memory']['ratio']:.2f} of the peer's")
        for key, found in agree.items():
            print(f"  {key}: apart by {found['greatest_difference']:.2g}, allowed {found['allowed']:g}")
        holds &= all(found["holds"] for found in agree.values())
    return 0 if holds else 1


if __name__ == "__main__":
    sys.exit(main())
