"""Answers that models give to prompts, as candidates for people to compare, and what scorers say of them."""

import gc
import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fairlead.artifacts.manifest import require_kind
from fairlead.config.common import ForwardConfig, ModelConfig
from fairlead.config.compare import LENGTH, LIKELIHOOD, CompareConfig
from fairlead.data.chat_template import ChatTemplate
from fairlead.data.examples import Example, task_examples
from fairlead.errors import ExitCode, UserError
from fairlead.feedback.comparisons import prompt_digest
from fairlead.generate.policy import load_policy
from fairlead.models.build import add_frozen, ready
from fairlead.models.loading import require_context, tokenizer_in
from fairlead.models.roles import Roles
from fairlead.models.sources import resolve
from fairlead.records import Prompt
from fairlead.rollout.sample import sample_responses, score_responses
from fairlead.runtime.start import Runtime
from fairlead.synthesize.best_of_n import is_text
from fairlead.train.rows import policy_source


@dataclass(frozen=True, slots=True)
class Said:
    """An answer, the seed that it was drawn with, and the mean log-probability of its tokens in nats."""

    model: str
    text: str
    seed: int
    likelihood: float


@dataclass(frozen=True, slots=True)
class Candidate:
    """A prompt with the answers to compare."""

    prompt: Prompt
    answers: tuple[Said, ...]


def draw(
    config: CompareConfig, models: Mapping[str, str], prompts: Sequence[Prompt], runtime: Runtime
) -> list[Candidate]:
    """The answers of the models, by name, in turns. Prompts that are too long, or got an answer twice, are left out."""
    said: dict[int, dict[int, Said]] = {index: {} for index in range(len(prompts))}
    for place, (name, path) in enumerate(models.items()):
        turns = range(place, config.answers, len(models))
        for (index, turn), one in _answers(config, name, path, prompts, turns, runtime).items():
            said[index][turn] = one
        gc.collect()  # modules with hooks are cycles; the next model loads its own
    candidates = [
        Candidate(prompt, tuple(said[index][turn] for turn in sorted(said[index])))
        for index, prompt in enumerate(prompts)
    ]
    return [one for one in candidates if _differ([said.text for said in one.answers], config.answers)]


def _differ(texts: Sequence[str], wanted: int) -> bool:
    return len({text.strip() for text in texts}) == wanted and all(map(is_text, texts))


def _answers(
    config: CompareConfig, name: str, path: str, prompts: Sequence[Prompt], turns: Sequence[int], runtime: Runtime
) -> dict[tuple[int, int], Said]:
    """What one model says, by the places of prompt and answer."""
    source = policy_source(ModelConfig(name=path), config.sampling.max_new_tokens)
    policy = load_policy(source, runtime)
    encoded = [task_examples([prompt], policy.template, config.max_length)[0] for prompt in prompts]
    asked = {(index, turn): tasks[0].input_ids for index, tasks in enumerate(encoded) if tasks for turn in turns}
    if not asked:
        return {}
    require_context(source, max(map(len, asked.values())) + config.sampling.max_new_tokens)
    seeds = {place: _seed(runtime.seed, prompts[place[0]], place[1]) for place in asked}
    responses = sample_responses(
        policy.engine, list(asked.values()), config.sampling, seeds=list(seeds.values()), runtime=runtime
    )
    return {
        place: Said(
            name, policy.template.decode(response.tokens), seeds[place], sum(response.logprobs) / len(response.logprobs)
        )
        for place, response in zip(asked, responses, strict=True)
    }


def _seed(seed: int, prompt: Prompt, turn: int) -> int:
    """That of one answer, whatever other prompts there are."""
    words = f"{seed} {prompt_digest(prompt.messages)} {turn}".encode()
    return int.from_bytes(hashlib.blake2b(words, digest_size=4).digest()) % 2**31


def score(config: CompareConfig, candidates: Sequence[Candidate], runtime: Runtime) -> dict[str, list[list[float]]]:
    """By scorer, and in the order in which they are named: of each candidate the scores of its answers."""
    found: dict[str, list[list[float]]] = {}
    for name in config.reward:
        if name == LENGTH:
            found[name] = [[float(len(said.text)) for said in one.answers] for one in candidates]
        elif name == LIKELIHOOD:
            found[name] = [[said.likelihood for said in one.answers] for one in candidates]
        else:
            found[name] = _model_scores(name, candidates, config.batch, runtime)
            gc.collect()
    return found


def _model_scores(
    name: str, candidates: Sequence[Candidate], batch: ForwardConfig, runtime: Runtime
) -> list[list[float]]:
    require_kind(Path(name), ("reward",), wanted_for="reward")
    source = resolve(name)
    assert source.manifest is not None
    template = ChatTemplate(tokenizer_in(source.base.folder))
    end_token = source.manifest.facts["score_at"] == "end_token"
    roles = Roles()
    add_frozen(roles, "reward", source, "scores", runtime)
    ready(roles, ModelConfig(), runtime)
    rows: list[Example] = []
    for one in candidates:
        for said in one.answers:
            prompt, response = template.encode_response(one.prompt.messages, said.text, end_token=end_token)
            rows.append(Example((*prompt, *response), (False,) * len(prompt) + (True,) * len(response)))
    require_context(source, max(len(row.input_ids) for row in rows))
    scores = score_responses(roles, "reward", rows, batch, runtime).tolist()
    if not all(map(math.isfinite, scores)):
        raise UserError(
            "the reward model gave no finite score", where=name, fix="train it again", exit_code=ExitCode.BAD_DATA
        )
    values = iter(scores)
    return [[next(values) for _ in one.answers] for one in candidates]
