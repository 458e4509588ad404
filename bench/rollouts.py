"""The prompts of the rollout works: real ones of mixed length, as tokens, the same for both sides."""

import argparse
import itertools
from collections.abc import Sequence

from setting import source

from fairlead.data.chat_template import ChatTemplate
from fairlead.data.load import read_prompts
from fairlead.data.starter import resolve_paths
from fairlead.models.loading import tokenizer_in
from fairlead.models.sources import Source
from fairlead.runtime.environment import cache_folder

DATASETS = ("alpaca_en_demo", "alpaca_zh_demo")
LONGEST = 256  # tokens of a prompt


def model() -> tuple[Source, ChatTemplate]:
    """The model, and the template of its chats."""
    found = source()
    return found, ChatTemplate(tokenizer_in(found.base.folder))


def prompts(template: ChatTemplate, count: int) -> Sequence[tuple[int, ...]]:
    """As many from each dataset, in the order of the files."""
    found: list[tuple[int, ...]] = []
    for number, path in enumerate(resolve_paths(DATASETS, cache_folder())):
        share = (count + number) // len(DATASETS)
        records = read_prompts([path]).records
        encoded = (tuple(template.encode_prompt(prompt.messages)) for prompt in records)
        found += itertools.islice((tokens for tokens in encoded if len(tokens) <= LONGEST), share)
    return found


def parser() -> argparse.ArgumentParser:
    """The options of both sides."""
    options = argparse.ArgumentParser()
    options.add_argument("--prompts", type=int, default=64)
    options.add_argument("--max-new-tokens", type=int, default=128)
    return options
