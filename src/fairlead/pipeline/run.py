"""Running a journey: every stage of a recipe in order, then one report."""

import gc
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fairlead.artifacts.atomic import write_text
from fairlead.artifacts.stages import stage_folder
from fairlead.config.journey import JourneyConfig, Step, stage_named
from fairlead.config.parse import parse_mapping
from fairlead.config.section import Section
from fairlead.config.show import recipe_text
from fairlead.errors import UserError
from fairlead.evaluate.evaluate import evaluate
from fairlead.evaluate.report import journey_report
from fairlead.pipeline.datasets import split_rows
from fairlead.pipeline.estimate import describe, estimate
from fairlead.pipeline.replies import make_replies
from fairlead.runtime.progress import followed_by, minutes
from fairlead.runtime.start import Runtime, start
from fairlead.train.dpo import train_dpo
from fairlead.train.grpo import train_grpo
from fairlead.train.kto import train_kto
from fairlead.train.ppo import train_ppo
from fairlead.train.reward import train_reward
from fairlead.train.sft import train_sft

MEASURED = ("sft", "reward", "dpo", "kto", "ppo", "grpo")
TRUST_SECONDS = 60.0  # the estimates count as much as this long a stage


def run_config(journey: JourneyConfig, *, dry_run: bool = False) -> Path:
    """Run or go on with a journey. Finished, unchanged stages are skipped; interrupted ones resume."""
    run = Path(journey.output)
    foreseen = estimate(journey)
    runtime = start(journey.runtime)
    if dry_run:
        print(recipe_text(journey))
        runtime.say(describe(foreseen))
        return run
    done: list[Path] = []
    plan = _Plan(run, {name: part.seconds for name, part in foreseen.items()}, runtime)
    with _recipe_of(run, recipe_text(journey), runtime):
        for step in journey.steps:
            with plan.at(step.name):
                done.append(_run_stage(journey, step, run, runtime))
            gc.collect()  # modules with hooks are cycles; the next stage loads its own
        if journey.eval is not None:
            with plan.at("eval"):
                done += [_measure(journey, step, run) for step in journey.steps if step.stage in MEASURED]
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


def _run_stage(journey: JourneyConfig, step: Step, run: Path, runtime: Runtime) -> Path:
    config = in_run(journey, step, run)
    match step.stage:
        case "split":
            return split_rows(config, run, runtime)
        case "replies":
            return make_replies(config, name=step.name)
        case "sft":
            return train_sft(config, name=step.name)
        case "dpo":
            return train_dpo(config, name=step.name)
        case "kto":
            return train_kto(config, name=step.name)
        case _:
            once: dict[str, Callable[[Any], Path]] = {"reward": train_reward, "ppo": train_ppo, "grpo": train_grpo}
            return once[step.stage](config)


def _measure(journey: JourneyConfig, step: Step, run: Path) -> Path:
    """A policy on conversations and prompts, a reward model on pairs."""
    config = in_run(journey, Step("eval"), run)
    prompts = {"prompts": (), "reward_model": "", "verifiers": (), "answer_pattern": ""}
    other = {"conversations": (), **prompts} if step.stage == "reward" else {"preferences": ()}
    return evaluate(config.model_copy(update={"model": str(stage_folder(run, step.name)), **other}))


def in_run(journey: JourneyConfig, step: Step, run: Path) -> Any:
    """The stage's options with `@stage` as the folder of this run that the latest earlier step of that name made.

    From the second round on, the model that replies and goes on learning is that of the round before, and the seed is
    another one.
    """
    section: Section = getattr(journey, step.stage)
    values = section.model_dump()
    if "output" in values:
        values["output"] = str(run)
    steps = journey.steps
    earlier = steps[: steps.index(step)] if step in steps else steps
    if step.round > 1:
        learner = next(one.stage for one in reversed(earlier) if one.stage != "replies")
        values["model"] = f"@{learner}" if step.stage == "replies" else values["model"] | {"name": f"@{learner}"}
        values["runtime"]["seed"] += step.round - 1
    folders = {one.stage: stage_folder(run, one.name) for one in earlier}
    return parse_mapping(type(section), _resolved(values, folders), step.name)


def _resolved(value: Any, folders: Mapping[str, Path]) -> Any:
    if isinstance(value, dict):
        return {key: _resolved(item, folders) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_resolved(item, folders) for item in value]
    if not (isinstance(value, str) and value.startswith("@")):
        return value
    folder, (_, _, rest) = folders[stage_named(value)], value.partition("/")  # JourneyConfig knows that it is there
    return str(folder / rest) if rest else str(folder)
