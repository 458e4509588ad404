"""`fairlead feedback compare`: models answer prompts, and what is worth comparing goes into a store to be ranked.

A prompt that these models have been compared on is neither answered nor added again, so that a command which was cut
off, or is given again, goes on from there.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from fairlead.algos.selection import disagreement, most_first, round_robin, shuffled, uncertainty
from fairlead.config.compare import CompareConfig
from fairlead.data.dedup import band_keys, clusters
from fairlead.data.load import read_prompts
from fairlead.data.starter import resolve_paths
from fairlead.data.views import prompt_text
from fairlead.errors import ExitCode, UserError
from fairlead.feedback import PREFIX
from fairlead.feedback.accounts import User, first_admin, keeper
from fairlead.feedback.comparisons import Answer, add_comparison, compared_on, prompt_digest
from fairlead.feedback.rows import address_and_choice, rows_of
from fairlead.feedback.store import Store, open_store
from fairlead.pipeline.candidates import Candidate, draw, score
from fairlead.records import Message, Prompt
from fairlead.runtime.environment import cache_folder
from fairlead.runtime.start import Runtime, start

AT_ONCE = 256  # prompts that are answered before any is added, where no choice waits for all of them
MOST_INTEREST = 1000  # of what the scorers know nothing about
LIKE_PROMPTS, SHINGLE = 0.5, 5  # prompts of one kind share this much of their runs of so many characters or words


@dataclass(frozen=True, slots=True)
class Added:
    """Comparisons that were added, and those of these prompts and models that were there before."""

    added: int
    before: int


def compare(config: CompareConfig, models: Mapping[str, str]) -> Added:
    """Answer prompts with the models, which are given by name, and add what was chosen. UserError (65) for nothing."""
    runtime = start(config.runtime)
    if runtime.ranks.world_size > 1:
        raise UserError("this command runs in one process", got=f"{runtime.ranks.world_size}", fix="leave torchrun out")
    store = open_store(config.store, create=True)
    try:
        user = _keeper(store, runtime)
        prompts = _prompts(config)
        known = compared_on(store, list(models))
        before = sum(prompt_digest(prompt.messages) in known for prompt in prompts)
        left = [prompt for prompt in _ordered(config, prompts) if prompt_digest(prompt.messages) not in known]
        added = 0
        while left and (missing := config.comparisons - before - added) > 0:
            count = missing * config.prompts_per_comparison if config.draws_more else min(missing, AT_ONCE)
            asked, left = left[:count], left[count:]
            for chosen in _chosen(config, models, asked, missing, runtime):
                _add(store, user, config, *chosen)
                added += 1
        if not added + before:
            raise UserError(
                "no prompt got answers that can be compared", where="data", got=f"{len(prompts)} prompts",
                want=f"prompts of at most {config.max_length} tokens, and answers that differ",
                fix="raise max_length, sampling.max_new_tokens or sampling.temperature", exit_code=ExitCode.BAD_DATA,
            )  # fmt: skip
        return Added(added, before)
    finally:
        store.close()


def _keeper(store: Store, runtime: Runtime) -> User:
    """In whose name comparisons are added."""
    if made := first_admin(store):
        user, password = made
        runtime.say(f"the account {user.name} was made; its password, shown only now: {password}")
    found = keeper(store)
    if found is None:
        raise UserError(
            "this store has no administrator", where=store.place,
            fix=f"add one: fairlead feedback invite {store.place} NAME --role admin",
        )  # fmt: skip
    return found


def _prompts(config: CompareConfig) -> list[Prompt]:
    """What the files, and the chats of stores, ask; the same once."""
    found: dict[str, Prompt] = {}
    for name in config.data:
        read = _of_chats(name) if name.startswith(PREFIX) else _of_file(config, name)
        for prompt in read:
            found.setdefault(prompt_digest(prompt.messages), prompt)
    return list(found.values())


def _of_file(config: CompareConfig, name: str) -> Sequence[Prompt]:
    return read_prompts(resolve_paths([name], cache_folder(), "prompts"), **config.reading).records


def _of_chats(address: str) -> list[Prompt]:
    where, choice = address_and_choice(address)
    store = open_store(where)
    try:
        rows = list(rows_of(store, "prompts", choice))
    finally:
        store.close()
    return [
        Prompt(tuple(Message(said["role"], said["content"]) for said in row["messages"]), row["source"]) for row in rows
    ]


def _ordered(config: CompareConfig, prompts: Sequence[Prompt]) -> list[Prompt]:
    """The prompts in the order in which they are asked."""
    seed = config.runtime.seed
    if config.pick != "coverage":
        return [prompts[index] for index in shuffled(len(prompts), seed=seed)]
    texts = [prompt_text(prompt) for prompt in prompts]
    kinds = clusters(
        band_keys(texts, width=SHINGLE), lambda indices: [texts[index] for index in indices],
        threshold=LIKE_PROMPTS, width=SHINGLE,
    )  # fmt: skip
    return [prompts[index] for index in round_robin(kinds.tolist(), seed=seed)]


Chosen = list[tuple[Candidate, list[float], int]]
"""Each with the first reward model's scores of its answers, if there is one, and its interest."""


def _chosen(
    config: CompareConfig, models: Mapping[str, str], asked: Sequence[Prompt], most: int, runtime: Runtime
) -> Chosen:
    """At most so many of the prompts, answered."""
    runtime.say(f"compare: {len(asked) * config.answers} answers of at most {config.sampling.max_new_tokens} tokens")
    candidates = draw(config, models, asked, runtime)
    if len(candidates) < len(asked):
        runtime.say(f"compare: {len(asked) - len(candidates)} prompts left out: too long, or answers that are the same")
    if not candidates:
        return []
    scores = score(config, candidates, runtime)
    rewards = scores[config.reward_models[0]] if config.reward_models else [[] for _ in candidates]
    if not config.draws_more:
        return [(one, reward, 0) for one, reward in zip(candidates, rewards, strict=True)]
    doubt = _doubt(config, scores)
    order = most_first(doubt, seed=runtime.seed)[:most]
    return [(candidates[index], rewards[index], round(MOST_INTEREST * doubt[index])) for index in order]


def _doubt(config: CompareConfig, scores: Mapping[str, Sequence[Sequence[float]]]) -> list[float]:
    """Of each candidate how far the scorers are from knowing its order, 0 to 1."""
    names = config.reward_models if config.pick == "uncertain" else list(scores)
    measure: Callable[[Sequence[Sequence[float]]], float] = uncertainty if config.pick == "uncertain" else disagreement
    return [measure(of_one) for of_one in zip(*(scores[name] for name in names), strict=True)]


def _add(
    store: Store, user: User, config: CompareConfig, one: Candidate, rewards: Sequence[float], interest: int
) -> None:
    sampling = config.sampling.model_dump(mode="json")
    details = [{"seed": said.seed, "sampling": sampling} for said in one.answers]
    if rewards:
        details = [given | {"reward": reward} for given, reward in zip(details, rewards, strict=True)]
    answers = [Answer(said.model, said.text, given) for said, given in zip(one.answers, details, strict=True)]
    add_comparison(
        store, user, one.prompt.messages, answers, source=one.prompt.source, wanted=config.wanted, interest=interest
    )  # fmt: skip
