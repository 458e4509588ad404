"""The prompts of the rollout works: real ones of mixed length, as tokens, the same for both sides."""

from collections.abc import Sequence

from fairlead.config.common import ModelConfig
from fairlead.data.chat_template import ChatTemplate
from fairlead.data.load import read_prompts
from fairlead.data.starter import resolve_paths
from fairlead.models.loading import tokenizer_in
from fairlead.models.sources import Source, resolve
from fairlead.runtime.environment import cache_folder

DATASETS = ("alpaca_en_demo", "alpaca_zh_demo")
LONGEST = 256  # tokens of a prompt


def model() -> tuple[Source, ChatTemplate]:
    """The starter model."""
    source = resolve(ModelConfig().name)
    return source, ChatTemplate(tokenizer_in(source.base.folder))


def prompts(template: ChatTemplate, count: int) -> Sequence[tuple[int, ...]]:
    """As many from each dataset, in the order of the files."""
    found: list[tuple[int, ...]] = []
    for number, path in enumerate(resolve_paths(DATASETS, cache_folder()), start=1):
        for prompt in read_prompts([path]).records:
            tokens = tuple(template.encode_prompt(prompt.messages))
            if len(tokens) <= LONGEST:
                found.append(tokens)
            if len(found) == count * number // len(DATASETS):
                break
    return found
