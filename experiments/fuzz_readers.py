"""Fuzzing of the readers, guided by coverage: no exception but UserError, no signal, no hang, no memory without bound.

    pip install --target build/fuzz --no-deps atheris==3.0.0    # once; it is no dependency of fairlead
    PYTHONPATH=build/fuzz python experiments/fuzz_readers.py csv xml --minutes 10 --folder /tmp/fuzz

Without names all readers of fuzz_targets.py run, one after the other. Each runs in a child process of its own, where
atheris (libFuzzer) watches which branches of fairlead.data an input reaches and keeps those that reach new ones, in
FOLDER/READER/corpus; what goes wrong is kept with its input in FOLDER/READER/findings, and the campaign goes on. An
input has at most 64 KiB and 5 seconds; the process, 1.5 GiB of memory and 6 GiB of address space.
`--replay FILE` reads one input of one reader again. Exits 1 where there are findings.
"""

import argparse
import hashlib
import json
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
from dataclasses import asdict, dataclass, field
from pathlib import Path
from random import Random
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "src"), str(ROOT / "tests")]

MAX_SECONDS = 5
MAX_RSS_MIB = 1536
MAX_ADDRESSES = 6 << 30
MAX_RESTARTS = 20  # after a signal, a hang or too much memory, which end a child
INPUTS, PEAK_MIB, SLOWEST = "number_of_executed_units", "peak_rss_mb", "slowest_unit_time_sec"
HEADER = """| reader | minutes | inputs | inputs/s | branches | slowest, s | peak MiB | findings |
|---|---|---|---|---|---|---|---|"""


@dataclass
class Campaign:
    """What a campaign of one reader came to; coverage counts branches of fairlead.data, of the seeds and at the end."""

    reader: str
    seconds: float = 0.0
    inputs: int = 0
    coverage_of_seeds: int = 0
    coverage: int = 0
    peak_mib: int = 0
    slowest_seconds: int = 0
    findings: list[str] = field(default_factory=list)

    def add(self, log: str) -> None:
        """Take the figures out of libFuzzer's report of one child, which has no statistics where it was cut short."""
        stats = {name: int(value) for name, value in re.findall(r"^stat::(\w+):\s+(\d+)", log, re.MULTILINE)}
        seen = [int(number) for number in re.findall(r"^#(\d+)\s", log, re.MULTILINE)]
        covered = [int(number) for number in re.findall(r"\bcov: (\d+)", log)]
        self.inputs += stats.get(INPUTS, max(seen, default=0))
        self.peak_mib = max(self.peak_mib, stats.get(PEAK_MIB, 0))
        self.slowest_seconds = max(self.slowest_seconds, stats.get(SLOWEST, 0))
        first = re.search(r"INITED\s+cov: (\d+)", log)
        self.coverage_of_seeds = self.coverage_of_seeds or (int(first[1]) if first else 0)
        self.coverage = max(self.coverage, *covered, 0)

    def __str__(self) -> str:
        cells = (
            self.reader, f"{self.seconds / 60:.1f}", f"{self.inputs:,}", f"{self.inputs / self.seconds:,.0f}",
            f"{self.coverage_of_seeds} -> {self.coverage}", self.slowest_seconds, self.peak_mib, len(self.findings),
        )  # fmt: skip
        return f"| {' | '.join(map(str, cells))} |"


def run_campaign(reader: str, minutes: float, folder: Path, seed: int) -> Campaign:
    """Fuzz one reader in child processes until the time is over."""
    (folder / "findings").mkdir(parents=True, exist_ok=True)
    campaign = Campaign(reader)
    began = time.monotonic()
    for restart in range(MAX_RESTARTS):
        left = 60 * minutes - (time.monotonic() - began)
        if left < 1:
            break
        options = ["--child", "--seconds", str(round(left)), "--folder", str(folder), "--seed", str(seed + restart)]
        with (folder / f"log-{restart}.txt").open("wb") as log:
            child = subprocess.run([sys.executable, __file__, reader, *options], stdout=log, stderr=log, check=False)
        text = (folder / f"log-{restart}.txt").read_text(encoding="utf-8", errors="replace")
        campaign.add(text)
        if child.returncode and "INITED" not in text:
            raise SystemExit(f"{reader}: the child could not begin:\n{text[-3000:]}")
        if child.returncode and not any(path.name in text for path in folder.glob("findings/*-*")):
            (folder / "findings" / f"ended-{restart}").write_text(text[-3000:], encoding="utf-8")  # no input alone
    campaign.seconds = time.monotonic() - began
    campaign.findings = sorted(path.name for path in folder.glob("findings/*") if path.suffix != ".txt")
    (folder / "campaign.json").write_text(json.dumps(asdict(campaign), indent=1), encoding="utf-8")
    return campaign


def fuzz(reader: str, seconds: int, folder: Path, seed: int) -> None:
    """The child: libFuzzer's loop over one reader. Does not return."""
    import atheris  # noqa: PLC0415  only a child needs it

    with atheris.instrument_imports(include=["fairlead.data"]):
        from experiments.fuzz_targets import MAX_BYTES, TARGETS, shared_pieces  # noqa: PLC0415
    target = TARGETS[reader]
    seeds = (*target.seeds, *shared_pieces(target, ROOT.parent / "shared" / "data"))
    corpus, work = folder / "corpus", folder / "work"
    corpus.mkdir(exist_ok=True)
    work.mkdir(exist_ok=True)
    for data in seeds:
        (corpus / hashlib.sha256(data).hexdigest()[:16]).write_bytes(data[:MAX_BYTES])
    resource.setrlimit(resource.RLIMIT_AS, (MAX_ADDRESSES, MAX_ADDRESSES))

    def read(data: bytes) -> None:
        try:
            target.read(data, work)
        except Exception as error:  # noqa: BLE001  that is what is looked for
            keep(folder / "findings", data, error)

    def mutate(data: bytes, max_size: int, number: int) -> bytes:
        rng = Random(number)  # noqa: S311
        if rng.random() < 0.4:
            return bytes(atheris.Mutate(data, max_size))
        return target.mutate(bytes(data), rng, seeds, target.words)[:max_size]

    options = {
        "max_total_time": seconds, "timeout": MAX_SECONDS, "rss_limit_mb": MAX_RSS_MIB, "max_len": MAX_BYTES,
        "seed": seed, "print_final_stats": 1, "artifact_prefix": f"{folder}/findings/", "len_control": 0,
    }  # fmt: skip
    atheris.Setup(
        [__file__, *(f"-{key}={value}" for key, value in options.items()), str(corpus)], read, custom_mutator=mutate
    )
    atheris.Fuzz()


def keep(folder: Path, data: bytes, error: BaseException) -> None:
    """Keep the shortest input of each kind of exception, told apart by its type and the place that raised it."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    name = f"{type(error).__name__}.{Path(frame.filename).stem}.{frame.lineno}"
    path = folder / name
    if path.exists() and path.stat().st_size <= len(data):
        return
    path.write_bytes(data)
    text = "".join(traceback.format_exception(error))
    (folder / f"{name}.txt").write_text(text, encoding="utf-8", errors="replace")


def replay(reader: str, path: Path) -> None:
    """Read one input again, and let its exception through."""
    from experiments.fuzz_targets import TARGETS  # noqa: PLC0415  after the arguments are known

    with tempfile.TemporaryDirectory() as work:
        began = time.monotonic()
        TARGETS[reader].read(path.read_bytes(), Path(work))
        print(f"nothing found, {time.monotonic() - began:.2f} s")


def main(argv: list[str] | None = None) -> int:
    """Returns 1 where something was found."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("readers", nargs="*")
    parser.add_argument("--minutes", type=float, default=10.0, help="of wall time, for each reader")
    parser.add_argument("--folder", type=Path, help="for corpora and findings; a new temporary one if not given")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--replay", type=Path, metavar="FILE")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--seconds", type=int, help=argparse.SUPPRESS)
    args: Any = parser.parse_args(argv)
    if args.child:
        fuzz(args.readers[0], args.seconds, args.folder, args.seed)
    if args.replay:
        replay(args.readers[0], args.replay)
        return 0
    from experiments.fuzz_targets import TARGETS  # noqa: PLC0415  a child imports it with eyes on every branch

    if unknown := set(args.readers) - TARGETS.keys():
        parser.error(f"no reader is called {', '.join(unknown)}; there are {', '.join(TARGETS)}")
    folder = args.folder or Path(tempfile.mkdtemp(prefix="fuzz-"))
    print(f"corpora and findings: {folder}\n{HEADER}", flush=True)
    found = 0
    for reader in args.readers or TARGETS:
        shutil.rmtree(folder / reader, ignore_errors=True)
        campaign = run_campaign(reader, args.minutes, folder / reader, args.seed)
        print(campaign, *(f"\n  {name}" for name in campaign.findings), flush=True)
        found += len(campaign.findings)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
