"""The steps that are on, in the order they run: mend first, then drop by cheap signs, then mask, then judge."""

from functools import partial

from fairlead.config.filters import FiltersConfig
from fairlead.data.filters.encoding import repair
from fairlead.data.filters.language import detector, language
from fairlead.data.filters.length import length
from fairlead.data.filters.outcome import Dropped, Kept, Step
from fairlead.data.filters.phrases import phrases
from fairlead.data.filters.pii import pii
from fairlead.data.filters.quality import quality
from fairlead.data.filters.repetition import repetition
from fairlead.data.filters.script import converter, to_script
from fairlead.data.filters.symbols import symbols
from fairlead.data.filters.toxicity import toxicity, word_list
from fairlead.data.filters.truncation import empty, truncated

__all__ = ["Dropped", "Kept", "Step", "steps_of"]


def steps_of(config: FiltersConfig) -> dict[str, Step]:
    """By name, in the order they run; only those that are on.

    Raises UserError where a step cannot work: a package or a file is missing, or the quality classifier is no good.
    """
    return {**_mending(config), **_dropping(config), **_judging(config)}


def _mending(config: FiltersConfig) -> dict[str, Step]:
    steps: dict[str, Step] = {}
    if config.repair.enabled:
        steps["repair"] = partial(repair, config=config.repair)
    if config.script != "keep":
        converter(config.script)  # what is missing is told now, not at the first record
        steps["script"] = partial(to_script, script=config.script)
    return steps


def _dropping(config: FiltersConfig) -> dict[str, Step]:
    steps: dict[str, Step] = {}
    if config.language.enabled:
        detector()
        steps["language"] = partial(language, config=config.language)
    if config.length.enabled:
        steps["length"] = partial(length, config=config.length)
    if config.repetition.enabled:
        steps["repetition"] = partial(repetition, config=config.repetition)
    if config.symbols.enabled:
        steps["symbols"] = partial(symbols, config=config.symbols)
    if config.phrases.enabled:
        steps["phrases"] = partial(phrases, config=config.phrases)
    if config.empty:
        steps["empty"] = empty
    if config.truncated.enabled:
        steps["truncated"] = partial(truncated, config=config.truncated)
    return steps


def _judging(config: FiltersConfig) -> dict[str, Step]:
    steps: dict[str, Step] = {}
    if config.pii.enabled:
        steps["pii"] = partial(pii, config=config.pii)
    if config.toxicity.enabled:
        word_list(config.toxicity)
        steps["toxicity"] = partial(toxicity, config=config.toxicity)
    if config.quality.enabled:
        steps["quality"] = quality(config.quality)
    return steps
