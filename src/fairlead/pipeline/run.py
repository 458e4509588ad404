"""Running a journey: every stage of a recipe in order, then one report."""

import gc
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fairlead.artifacts.atomic import write_text
from fairlead.artifacts.stages import stage_folder
from fairlead.config.journey import STAGES, JourneyConfig
from fairlead.config.parse import parse_mapping
from fairlead.config.section import Section
from fairlead.config.show import recipe_text
from fairlead.errors import UserError
from fairlead.evaluate.evaluate import evaluate
from fairlead.evaluate.report import journey_report
from fairlead.pipeline.datasets import make_pairs, split_rows
from fairlead.pipeline.estimate import describe, estimate
from fairlead.runtime.progress import followed_by, minutes
from fairlead.runtime.start import Runtime, start
from fairlead.train.dpo import train_dpo
from fairlead.train.grpo import train_grpo
from fairlead.train.ppo import train_ppo
from fairlead.train.reward import train_reward
from fairlead.train.sft import train_sft

MEASURED = ("sft", "reward", "dpo", "ppo", "grpo")
TRUST_SECONDS = 60.0  # the estimates count as much as this long a stage


def run_config(journey: JourneyConfig, *, dry_run: bool = False) -> Path:
    """Run or go on with a journey. Finished, unchanged stages are skipped; interrupted ones resume."""
    run = Path(journey.output)
    planned = [name for name in STAGES if getattr(journey, name) is not None]
    foreseen = estimate(journey, planned)
    runtime = start(journey.runtime)
    if dry_run:
        print(recipe_text(journey))
        runtime.say(describe(foreseen))
        return run
    done: list[Path] = []
    plan = _Plan(run, {name: part.seconds for name, part in foreseen.items()}, runtime)
    with _recipe_of(run, recipe_text(journey), runtime):
        for name in planned:
            with plan.at(name):
                done.append(_run_stage(journey, name, run, runtime))
            gc.collect()  # modules with hooks are cycles; the next stage loads its own
        if journey.eval is not None:
            with plan.at("eval"):
                done += [_measure(journey, name, run) for name in MEASURED if name in planned]
    if runtime.is_main:
        runtime.say(f"report: {journey_report(run, done, title=journey.title, notes=journey.notes)}")
    return run


@contextmanager
def _recipe_of(run: Path, text: str, runtime: Runtime) -> Iterator[None]:
    """Keep the recipe in the run's folder; one that a stage refuses does not replace the one the run was made with."""
    path = run / "recipe.yaml"
    before = path.read_text(encoding="utf-8") if path.is_file() else None
    runtime.ranks.barrier()
    if runtime.is_main:
        run.mkdir(parents=True, exist_ok=True)
        write_text(path, text)
    try:
        yield
    except UserError:
        if runtime.is_main and before is not None:
            write_text(path, before)
        raise


class _Plan:
    """Where a journey is, and how long the rest takes: the estimates, corrected by what the stages so far took."""

    def __init__(self, run: Path, foreseen: Mapping[str, float], runtime: Runtime) -> None:
        self._run, self._runtime = run, runtime
        self._foreseen = foreseen  # seconds of each stage, in order
        self._timed: dict[str, float] = {}

    @contextmanager
    def at(self, name: str) -> Iterator[None]:
        """Announce a stage; while it runs, its progress line says how long the whole journey still takes."""
        names = list(self._foreseen)
        position = names.index(name)
        later = self._pace() * sum(self._foreseen[other] for other in names[position + 1 :])
        rest = later + self._pace() * self._foreseen[name]
        self._runtime.say(f"[{position + 1}/{len(names)}] {name}: about {minutes(rest)} left of the journey")
        whole = not stage_folder(self._run, name).exists()  # a part of a stage says nothing about the pace
        began = time.monotonic()
        with followed_by(later):
            yield
        if whole:
            self._timed[name] = time.monotonic() - began

    def _pace(self) -> float:
        """Seconds taken for each second foreseen; the first short stages say little and move it little."""
        foreseen = sum(self._foreseen[name] for name in self._timed)
        return (sum(self._timed.values()) + TRUST_SECONDS) / (foreseen + TRUST_SECONDS)


def _run_stage(journey: JourneyConfig, name: str, run: Path, runtime: Runtime) -> Path:
    config = in_run(journey, name, run)
    if name == "split":
        return split_rows(config, run, runtime)
    if name == "replies":
        return make_pairs(config, run)
    trainers: dict[str, Callable[[Any], Path]] = {
        "sft": train_sft, "reward": train_reward, "dpo": train_dpo, "ppo": train_ppo, "grpo": train_grpo,
    }  # fmt: skip
    return trainers[name](config)


def _measure(journey: JourneyConfig, name: str, run: Path) -> Path:
    """A policy on conversations and prompts, a reward model on pairs."""
    config = in_run(journey, "eval", run)
    prompts = {"prompts": (), "reward_model": "", "verifiers": (), "answer_pattern": ""}
    other = {"conversations": (), **prompts} if name == "reward" else {"preferences": ()}
    return evaluate(config.model_copy(update={"model": str(stage_folder(run, name)), **other}))


def in_run(journey: JourneyConfig, name: str, run: Path) -> Any:
    """The stage's options with `@stage` references as folders of this run."""
    section: Section = getattr(journey, name)
    values = _resolved(section.model_dump(), run)
    if "output" in values:
        values["output"] = str(run)
    return parse_mapping(type(section), values, name)


def _resolved(value: Any, run: Path) -> Any:
    if isinstance(value, dict):
        return {key: _resolved(item, run) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_resolved(item, run) for item in value]
    if not (isinstance(value, str) and value.startswith("@")):
        return value
    stage, _, rest = value[1:].partition("/")  # JourneyConfig knows that the stage is there
    folder = stage_folder(run, stage)
    return str(folder / rest) if rest else str(folder)
