"""kill -9 at random moments of every trainer, the same command again, and the end compared byte for byte.

    python experiments/kill_resume.py --trainer all --kills 10 --model tiny
    python experiments/kill_resume.py --trainer ppo --kills 1 --model starter --folder F

An undisturbed run comes first. Each kill is a new run in a folder of its own: started as `python -m fairlead ...`,
killed with SIGKILL, started again to its end. Its model, critic, metrics, samples and the state in its last checkpoint
(weights, optimizer, numbers) must be those of the undisturbed run, bit for bit. Only kills that land while training
(after the first and before the last step) count; the others are done and compared as well.
Results are kept in F/results.json after every kill, and a later call goes on from there.
"""

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "src"), str(ROOT / "tests")]

from tiny_stages import TRAINERS, TinyWorld, fingerprints  # noqa: E402 - found by the line above

POLL_SECONDS = 0.002
# Long enough to be hit while training, with a checkpoint every other step.
TINY = {
    "sft": ("num_epochs=15", "checkpoint.every_steps=2", "eval_every_steps=10", "model.lora.dropout=0.1"),
    "reward": ("num_epochs=16", "checkpoint.every_steps=2", "eval_every_steps=10", "model.lora.dropout=0.1"),
    "dpo": ("num_epochs=16", "checkpoint.every_steps=2", "eval_every_steps=10", "model.lora.dropout=0.1"),
    "kto": ("num_epochs=12", "checkpoint.every_steps=2", "eval_every_steps=10", "model.lora.dropout=0.1"),
    "ppo": ("num_iterations=30", "checkpoint.every_steps=2", "ptx_coef=0.1", "ptx_rows=3", "kl.controller=adaptive",
            "kl.horizon=100", "whiten_advantages=true"),
    "grpo": ("num_iterations=40", "checkpoint.every_steps=2", "num_epochs=2"),
}  # fmt: skip
SHORT = ("model.name=smollm2-135m-instruct", "model.lora.rank=8", "runtime.dtype=auto", "data.max_length=64",
         "data.max_reject_rate=1", "data.max_rows=20", "checkpoint.every_steps=1", "optim.lr=1e-4")  # fmt: skip
STARTER = {
    "sft": (*SHORT, "batch.rows=4", "max_steps=6", "num_epochs=2"),
    "reward": (*SHORT, "batch.rows=4", "max_steps=6", "num_epochs=2"),
    "dpo": (*SHORT, "batch.rows=4", "max_steps=6", "num_epochs=2"),
    "kto": (*SHORT, "batch.rows=4", "max_steps=6", "num_epochs=2"),
    "ppo": (*SHORT, "num_iterations=5", "prompts_per_iteration=4", "mini_batch_size=2", "sampling.max_new_tokens=12",
            "ptx_coef=0.1", "ptx_rows=2"),
    "grpo": (*SHORT, "num_iterations=5", "prompts_per_iteration=2", "num_responses_per_prompt=2", "mini_batch_size=2",
             "sampling.max_new_tokens=12"),
}  # fmt: skip


@dataclass
class Kill:
    """One kill and what came of it."""

    number: int
    hit: str  # "training", "before" the first step, "after" the last step, "too late"
    step: int  # lines in metrics.jsonl when it struck
    saving: bool  # a half-written checkpoint lay there
    different: list[str]  # files that differ from the undisturbed run


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--trainer", default="all", choices=(*TRAINERS, "all"))
    parser.add_argument("--kills", type=int, default=10, help="kills per trainer that land while training")
    parser.add_argument("--model", default="tiny", choices=("tiny", "starter"))
    parser.add_argument("--folder", type=Path, help="where runs and results are kept")
    words = parser.parse_args()
    folder = (words.folder or Path("runs") / "kill-resume" / words.model).absolute()
    trainers = list(TRAINERS) if words.trainer == "all" else [words.trainer]
    experiment = Experiment(folder, words.model)
    for trainer in trainers:
        experiment.run(trainer, words.kills)
    print(experiment.table(trainers))
    sys.exit(1 if any(kill.different for trainer in trainers for kill in experiment.kills(trainer)) else 0)


class Experiment:
    """All runs in one folder, and the results so far."""

    def __init__(self, folder, model):
        self.folder, self.model = folder, model
        self.path = folder / "results.json"
        self.results = json.loads(self.path.read_text()) if self.path.is_file() else {}
        (folder / "world").mkdir(parents=True, exist_ok=True)
        self.world = TinyWorld(folder / "world")
        if model == "starter" and not (folder / "world" / "starter-reward").is_dir():
            self.world.reward = self.world.run("reward", folder / "world" / "starter-reward", *STARTER["reward"])
        elif model == "starter":
            self.world.reward = folder / "world" / "starter-reward" / "01-reward"

    def kills(self, trainer):
        return [Kill(**kill) for kill in self.results[trainer]["kills"]]

    def run(self, trainer, wanted):
        if trainer not in self.results:
            self.results[trainer] = self.undisturbed(trainer) | {"kills": []}
            self.save()
        while sum(kill.hit == "training" for kill in self.kills(trainer)) < wanted:
            kill = self.disturbed(trainer, len(self.results[trainer]["kills"]))
            self.results[trainer]["kills"].append(asdict(kill))
            self.save()
            verdict = f"DIFFERENT: {', '.join(kill.different)}" if kill.different else "equal"
            print(f"{trainer} kill {kill.number}: {kill.hit}, step {kill.step}: {verdict}", flush=True)

    def save(self):
        tmp = self.path.with_suffix(".tmp")
        tmp.write_text(json.dumps(self.results, indent=1))
        tmp.replace(self.path)

    def start(self, trainer, run):
        options = {"tiny": TINY, "starter": STARTER}[self.model][trainer]
        ptx = (f"ptx_data={self.world.conversations}",) if trainer == "ppo" else ()
        command = [sys.executable, "-m", "fairlead", trainer, *self.world.words(trainer, run, *ptx, *options)]
        environment = os.environ | {"PYTHONPATH": str(ROOT / "src"), "HF_HUB_OFFLINE": "1"}  # noqa: TID251
        with (run.parent / f"{run.name}.log").open("ab") as log:
            return subprocess.Popen(command, stdout=log, stderr=log, env=environment)

    def undisturbed(self, trainer):
        """Fingerprints of a run to the end, and how long the start and the training take."""
        run = self.folder / trainer / "undisturbed"
        shutil.rmtree(run, ignore_errors=True)
        run.parent.mkdir(parents=True, exist_ok=True)
        began = time.monotonic()
        process = self.start(trainer, run)
        moments = {}  # when each number of lines was first seen
        while process.poll() is None:
            moments.setdefault(num_lines(run), time.monotonic())
            time.sleep(POLL_SECONDS)
        if process.returncode:
            raise SystemExit(f"the undisturbed {trainer} run failed: see {run}.log")
        steps = num_lines(run)
        first = next(at for lines, at in sorted(moments.items()) if lines > 0)
        training = moments.get(steps, time.monotonic()) - first
        return {"start": first - began, "training": training, "steps": steps, "files": last_state(run)}

    def disturbed(self, trainer, number):
        """Kill a new run at a random moment, finish it by the same command, compare."""
        straight = self.results[trainer]
        rng = random.Random(f"{trainer} {number}")  # noqa: S311 - moments, not secrets
        run = self.folder / trainer / f"kill-{number:03d}"
        shutil.rmtree(run, ignore_errors=True)
        process = self.start(trainer, run)
        if rng.random() < 0.15:
            time.sleep(rng.uniform(0.0, straight["start"]))
        else:  # starting takes a different time every time, so the clock runs from the first step
            while num_lines(run) == 0 and process.poll() is None:
                time.sleep(POLL_SECONDS)
            time.sleep(rng.uniform(0.0, 1.1 * straight["training"]))
        process.send_signal(signal.SIGKILL)
        struck = process.wait() == -signal.SIGKILL
        step = num_lines(run)
        hit = "before" if step == 0 else "training" if step < straight["steps"] else "after"
        saving = any(run.glob("*/checkpoints/*.tmp-*"))
        again = self.start(trainer, run)
        if again.wait():
            raise SystemExit(f"going on after kill {number} of {trainer} failed: see {run}.log")
        found = last_state(run)
        different = sorted(
            name for name in {*found, *straight["files"]} if found.get(name) != straight["files"].get(name)
        )
        if not different:
            shutil.rmtree(run)
        return Kill(number, hit if struck else "too late", step, saving, different)

    def table(self, trainers):
        lines = ["| trainer | kills | before the first step | while training (in a save) | after | different |",
                 "|---|---|---|---|---|---|"]  # fmt: skip
        for trainer in trainers:
            kills = self.kills(trainer)
            count = {hit: sum(kill.hit == hit for kill in kills) for hit in ("before", "training", "after", "too late")}
            saving = sum(kill.saving and kill.hit == "training" for kill in kills)
            steps = sorted(kill.step for kill in kills if kill.hit == "training")
            lines.append(
                f"| {trainer} | {len(kills)} | {count['before']} | {count['training']} ({saving}), at steps "
                f"{', '.join(map(str, steps))} of {self.results[trainer]['steps']} | "
                f"{count['after'] + count['too late']} | {sum(bool(kill.different) for kill in kills)} |"
            )
        return "\n".join(lines)


def num_lines(run):
    """Steps written so far."""
    return sum(path.read_bytes().count(b"\n") for path in run.glob("*/metrics.jsonl"))


def last_state(run):
    """Fingerprints of a finished stage; of its checkpoints the last one."""
    (stage,) = run.glob("[0-9]*-*")
    if not (stage / "manifest.json").is_file() or not (stage / "report.html").is_file():
        raise SystemExit(f"{stage} is not finished")
    found = fingerprints(stage)
    last = max(name for name in found if name.startswith("checkpoints/"))
    last = last.rpartition("/")[0]
    return {name: digest for name, digest in found.items() if not name.startswith("checkpoints/") or last in name}


if __name__ == "__main__":
    main()
