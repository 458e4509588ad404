"""`fairlead demo`: the shipped journey on starter assets, whole or quick, with or without the DPO branch."""

import shlex
import sys
from collections.abc import Callable, Sequence
from importlib.resources import files
from pathlib import Path

from fairlead.config.journey import JourneyConfig
from fairlead.config.parse import load
from fairlead.data.starter import fetch
from fairlead.evaluate.report import STARTER_NOTE
from fairlead.pipeline.run import run_config
from fairlead.runtime.environment import cache_folder

QUICK = (
    "split.sft=32", "split.preference=24", "split.ppo=32", "split.held_out=12", "sft.num_epochs=1",
    "ppo.num_iterations=2", "ppo.prompts_per_iteration=16", "ppo.mini_batch_size=8", "reward.num_epochs=1",
    "eval.max_pairs=24",
)  # fmt: skip
QUICK_NOTE = (
    "This is the quick version: it shows that every stage runs. It holds out too few prompts and pairs for the claims "
    "that count them, and trains too little for the others; `fairlead demo` without --quick is the one to judge by."
)
DPO = (
    "dpo.model.name=@sft", "dpo.data.train=@replies/train.jsonl", "dpo.data.held_out=@replies/held_out.jsonl",
    "dpo.data.max_length=256", "dpo.optim.lr=1e-4", "dpo.add_end_token=false", "dpo.num_epochs=1",
)  # fmt: skip


def run_demo(
    *,
    output: str,
    quick: bool,
    branches: Sequence[str],
    overrides: Sequence[str],
    dry_run: bool,
    check: Callable[[JourneyConfig], None],
) -> Path:
    """Fetch the starter assets if they are not there, then run the journey; returns the run's folder.

    check: looks at the journey before its first stage, as for any recipe.
    """
    changes = [*(QUICK if quick else ()), *(DPO if "dpo" in branches else ()), f"output={output}", *overrides]
    journey = load(JourneyConfig, shipped_recipe("demo"), changes)
    fetch(cache_folder(), say=_say)
    check(journey)
    notes = (STARTER_NOTE, *((QUICK_NOTE,) if quick else ()), *journey.notes)
    run = run_config(journey.model_copy(update={"notes": notes}), dry_run=dry_run)
    if not dry_run:
        _say(f"\nTalk to it:  fairlead chat {shlex.quote(str(run))}\nLook at it:  {run / 'report.html'}")
        _say(
            f"In the browser, beside what it was before, to chat and rank:  {shlex.join(['fairlead', *pages_of(run)])}"
        )
    return run


def pages_of(run: Path) -> list[str]:
    """The words after `fairlead` that serve a run's models and keep what people say of them in its folder."""
    before = [f"sft={stage}" for stage in sorted(run.glob("[0-9][0-9]-sft"))]
    return ["serve", *before, f"{run.name}={run}", f"store={run / 'feedback.db'}"]


def shipped_recipe(name: str) -> Path:
    """A recipe that comes with the package, or with the checkout of an editable install."""
    package = Path(str(files("fairlead")))
    return next(
        path
        for folder in (package / "recipes", package.parents[1] / "recipes")
        if (path := folder / f"{name}.yaml").is_file()
    )


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
