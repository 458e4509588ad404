"""The stage in which a model answers prompts and its replies become rows: pairs, rankings or conversations."""

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fairlead.algos.kl import best_of_n_kl
from fairlead.artifacts.hashing import sha256_file
from fairlead.artifacts.identity import files_by_name, inside_run
from fairlead.artifacts.journal import Journal
from fairlead.artifacts.manifest import Manifest, Parent, package_versions, require_kind, write_manifest
from fairlead.artifacts.stages import stage_folder
from fairlead.config.common import ModelConfig, RowKind
from fairlead.config.endpoint import FREE_ENDPOINT_OPTIONS
from fairlead.config.replies import RepliesConfig
from fairlead.config.terms import JUDGE, REWARD_MODEL
from fairlead.data.chat_template import ChatTemplate
from fairlead.data.examples import Task, task_examples
from fairlead.data.load import READERS
from fairlead.data.split import without_prompts_of
from fairlead.data.starter import licences, resolve_paths
from fairlead.errors import ExitCode, UserError
from fairlead.generate.engine import Engine
from fairlead.generate.requests import Response
from fairlead.models.build import add_frozen, ready
from fairlead.models.loading import require_context, tokenizer_in
from fairlead.models.roles import Roles
from fairlead.models.sources import Source, resolve
from fairlead.pipeline.datasets import finished, held, write_json_lines
from fairlead.records import Conversation, Preference, Prompt, plain
from fairlead.rollout.rules import Rules, load_rules
from fairlead.rollout.sample import sample_responses, score_responses, scored_texts
from fairlead.runtime.environment import cache_folder, secret
from fairlead.runtime.machine import peak_memory_bytes
from fairlead.runtime.start import Runtime, start
from fairlead.synthesize.best_of_n import Reply, best_conversation, distinct, is_text, ranked_preference
from fairlead.synthesize.judge import Judge, dialogue, question_text
from fairlead.synthesize.own_replies import own_reply_pairs
from fairlead.train.rows import policy_source, rejects_path
from fairlead.train.stage import FREE_MACHINE_OPTIONS

_FREE_OPTIONS = {"output": True, "judge": FREE_ENDPOINT_OPTIONS, "runtime": FREE_MACHINE_OPTIONS}


def make_replies(config: RepliesConfig, *, name: str = "replies") -> Path:
    """Write train.jsonl and held_out.jsonl, and the scored replies (train-samples.jsonl …); returns the folder."""
    run = Path(config.output)
    folder = stage_folder(run, name)
    parents = _parents(config)
    rules = load_rules(
        config.terms, answer_pattern=config.answer_pattern, max_response_tokens=config.sampling.max_new_tokens
    )
    digests = dict(rules.digests)
    question = question_text(config.judge.prompt_file)
    if config.judge.prompt_file:
        digests[config.judge.prompt_file] = sha256_file(Path(config.judge.prompt_file))
    runtime = start(config.runtime)
    prompts = _prompts(config, name, digests, runtime)
    options = config.model_dump(mode="json", exclude=_FREE_OPTIONS)
    identity = {"config": options, "parents": {role: source.digest for role, source in parents.items()}}
    identity = inside_run(identity | {"data": files_by_name(digests)}, run)
    if finished(folder, identity, runtime):
        return folder
    began = time.monotonic()
    with held(folder, identity, runtime), _judge(config, question, folder, runtime) as judge:
        author = _Author(name, config, runtime, parents, rules, judge)
        sizes = [author.write(folder, part, prompts[part], place) for place, part in enumerate(prompts)]
        if runtime.is_main:
            write_manifest(folder, Manifest(
                kind="dataset", stage=name, config=config.model_dump(mode="json"), data_digests=digests,
                parents={role: Parent(path=source.name, digest=source.digest) for role, source in parents.items()},
                facts={
                    "sizes": {"rows" if config.method == "rejection_sampling" else "pairs": sum(sizes)},
                    "licences": licences([source.name for source in parents.values()], digests),
                },
                seed=runtime.seed, num_threads=runtime.num_threads, world_size=runtime.ranks.world_size,
                wall_seconds=time.monotonic() - began, versions=package_versions(),
                peak_memory_bytes=peak_memory_bytes(runtime.device),
            ))  # fmt: skip
    return folder


def _parents(config: RepliesConfig) -> dict[str, Source]:
    """The model that replies and the reward model, if one is asked for; refused by name when it is something else."""
    parents = {"model": policy_source(ModelConfig(name=config.model), config.sampling.max_new_tokens)}
    if config.scored_by_model:
        require_kind(Path(config.reward_model), ("reward",), wanted_for="reward_model")
        parents["reward"] = resolve(config.reward_model)
    return parents


def _prompts(config: RepliesConfig, name: str, digests: dict[str, str], runtime: Runtime) -> dict[str, list[Prompt]]:
    """Prompts by part, with their reference answers; none of the training part is held out."""
    data = config.data
    kind: RowKind = "conversations" if config.method == "own_rejected" else "prompts"
    found: dict[str, list[Prompt]] = {}
    for part, files in {"train": data.train, "held_out": data.held_out}.items():
        rejects = rejects_path(config.output, name, runtime) if part == "train" else None
        paths = resolve_paths(files, cache_folder(), kind)
        loaded = READERS[kind](paths, rejects=rejects, **data.reading)
        digests |= loaded.digests
        for note in loaded.told:
            runtime.say(f"{name}: {note}")
        if files:
            found[part] = [
                Prompt(r.prompt, r.source, r.messages[-1].content) if isinstance(r, Conversation) else r
                for r in loaded.records
            ]
    if "train" in found:
        rows = found["train"][: data.max_rows] if data.max_rows else found["train"]
        found["train"] = without_prompts_of(rows, found.get("held_out", []))
        if len(found["train"]) < len(rows):
            left_out = len(rows) - len(found["train"])
            runtime.say(f"{name}: {left_out} training prompts left out: they are held out")
    return found


@contextmanager
def _judge(config: RepliesConfig, question: str, folder: Path, runtime: Runtime) -> Iterator[Judge | None]:
    """The judge and its verdicts so far, where one is asked; only the first rank asks."""
    if runtime.is_main and any(term.name == JUDGE for term in config.terms):
        with Journal(folder / "verdicts.jsonl") as journal:
            yield Judge(config.judge, question, secret(config.judge.api_key_variable), journal)
    else:
        yield None


class _Author:
    """The model that replies, and what scores its replies."""

    def __init__(
        self, name: str, config: RepliesConfig, runtime: Runtime, parents: Mapping[str, Source],
        rules: Rules, judge: Judge | None,
    ) -> None:  # fmt: skip
        self.name, self.config, self.runtime = name, config, runtime
        self.rules, self.judge = rules, judge
        self.source = parents["model"]
        self.template = ChatTemplate(tokenizer_in(self.source.base.folder))
        self.roles = Roles()
        add_frozen(self.roles, "policy", self.source, "logprobs", runtime)
        self.score_at = ""
        if reward := parents.get("reward"):
            assert reward.manifest is not None
            self.score_at = reward.manifest.facts["score_at"]
            add_frozen(self.roles, "reward", reward, "scores", runtime)
        ready(self.roles, ModelConfig(), runtime)
        ends, decode = self.template.end_token_ids, self.template.decode
        self.engine = Engine(self.roles, "policy", ends, runtime, decode=decode)

    def write(self, folder: Path, part: str, prompts: Sequence[Prompt], place: int) -> int:
        """Answer the prompts of one part, write its rows and return how many; another `place` draws other numbers."""
        prompts, tasks = self._short_enough(prompts)
        times = 1 if self.config.method == "own_rejected" else self.config.num_responses_per_prompt
        self._say(f"{part}: {len(tasks) * times} replies of at most {self.config.sampling.max_new_tokens} tokens")
        asked = [task for task in tasks for _ in range(times)]
        first = (self.runtime.seed + place) * 65_536
        responses = sample_responses(
            self.engine, [task.input_ids for task in asked], self.config.sampling,
            seeds=[first + row for row in range(len(asked))], runtime=self.runtime,
        )  # fmt: skip
        if self.config.method == "own_rejected":
            records: Sequence[Preference | Conversation] = own_reply_pairs(
                self.template, prompts, [response.tokens for response in responses], max_tokens=self.config.max_tokens,
                min_tokens=self.config.min_tokens,
            )  # fmt: skip
        else:
            scores = self._scores(asked, responses)
            if not self.runtime.is_main:  # the judge answers to the first rank alone
                return 0
            groups = self._groups(prompts, responses, scores)
            _write_samples(folder / f"{part}-samples.jsonl", prompts, groups)
            records = self._choose(part, prompts, groups)
        if not records:
            raise UserError(
                f"no row came of the replies to {len(prompts)} prompts", where=f"{self.name}, {part}",
                got="replies that were cut off (some inside a character), say nothing, or score the same or below "
                "min_score, or pairs that are too short",
                fix="raise sampling.max_new_tokens or num_responses_per_prompt, lower min_tokens or min_score, or see "
                "ended_only, with another --output", exit_code=ExitCode.BAD_DATA,
            )  # fmt: skip
        self._say(f"{part}: {len(records)} rows of {len(prompts)} prompts")
        if self.runtime.is_main:
            write_json_lines(folder / f"{part}.jsonl", (_row(record, self.config.ranked) for record in records))
        return len(records)

    def _say(self, text: str) -> None:
        self.runtime.say(f"{self.name}: {text}")

    def _short_enough(self, prompts: Sequence[Prompt]) -> tuple[list[Prompt], list[Task]]:
        """The prompts that may be answered, and their tokens."""
        limit = self.config.data.max_length
        encoded = [(prompt, task_examples([prompt], self.template, limit)[0]) for prompt in prompts]
        kept = [(prompt, tasks[0]) for prompt, tasks in encoded if tasks]
        if len(kept) < len(prompts):
            self._say(f"{len(prompts) - len(kept)} prompts left out: longer than {limit} tokens")
        if not kept:
            raise UserError(
                "no prompt is left to answer", where=f"{self.name}.data", got=f"{len(prompts)} prompts",
                want=f"prompts of at most {limit} tokens", fix="raise data.max_length", exit_code=ExitCode.BAD_DATA,
            )  # fmt: skip
        longest = max(len(task.input_ids) for _, task in kept)
        require_context(self.source, longest + self.config.sampling.max_new_tokens)
        return [prompt for prompt, _ in kept], [task for _, task in kept]

    def _scores(self, tasks: Sequence[Task], responses: Sequence[Response]) -> list[float]:
        """Of every response, without the judge's part."""
        found = self.rules.scores(tasks, responses, self.template)
        if self.config.scored_by_model:
            found[REWARD_MODEL] = self._model_scores(tasks, responses)
        totals = [0.0] * len(responses)
        for term in self.config.terms:
            if term.name != JUDGE:
                totals = [total + term.weight * score for total, score in zip(totals, found[term.name], strict=True)]
        return totals

    def _model_scores(self, tasks: Sequence[Task], responses: Sequence[Response]) -> list[float]:
        prompts = [task.input_ids for task in tasks]
        texts = scored_texts(
            prompts, responses, score_at=self.score_at, end_token_ids=self.template.end_token_ids
        )  # fmt: skip
        scores = score_responses(self.roles, "reward", texts, self.config.batch, self.runtime).tolist()
        if not all(map(math.isfinite, scores)):
            raise UserError(
                "the reward model gave no finite score", where=self.config.reward_model, fix="train it again",
                exit_code=ExitCode.BAD_DATA,
            )  # fmt: skip
        return scores

    def _groups(
        self, prompts: Sequence[Prompt], responses: Sequence[Response], scores: Sequence[float]
    ) -> list[list[Reply]]:
        """The different replies to each prompt that may become rows, the judge's part now added to their scores."""
        times, cut_too = self.config.num_responses_per_prompt, not self.config.ended_only
        said = [Reply(self.template.decode(r.tokens), score) for r, score in zip(responses, scores, strict=True)]
        usable = [(r.finished or cut_too) and is_text(reply.text) for r, reply in zip(responses, said, strict=True)]
        groups = [
            distinct([said[i] for i in range(first, first + times) if usable[i]])
            for first in range(0, len(said), times)
        ]
        if self.judge is None:
            return groups
        weight = next(term.weight for term in self.config.terms if term.name == JUDGE)
        num_questions = sum(len(group) * (len(group) - 1) for group in groups)
        self._say(f"at most {num_questions} questions to the judge")
        texts = [[reply.text for reply in group] for group in groups]
        beaten = self.judge.scores([(dialogue(p.messages), said) for p, said in zip(prompts, texts, strict=True)])
        return [
            [Reply(reply.text, reply.score + weight * share) for reply, share in zip(group, shares, strict=True)]
            for group, shares in zip(groups, beaten, strict=True)
        ]

    def _choose(
        self, part: str, prompts: Sequence[Prompt], groups: Sequence[list[Reply]]
    ) -> list[Preference] | list[Conversation]:
        config = self.config
        best, every = [max(r.score for r in group) for group in groups if group], [r.score for g in groups for r in g]
        if every:
            self._say(
                f"{part}: {len(every)} usable replies score {sum(every) / len(every):.3f} on average, the best of each "
                f"prompt {sum(best) / len(best):.3f}; the best of {config.num_responses_per_prompt} is at most "
                f"{best_of_n_kl(config.num_responses_per_prompt):.2f} nats from the model"
            )
        pairs = zip(prompts, groups, strict=True)
        if config.method == "rejection_sampling":
            kept = [best_conversation(prompt, group, min_score=config.min_score) for prompt, group in pairs]
            return [conversation for conversation in kept if conversation is not None]
        ranked = [ranked_preference(prompt, group, whole=config.ranked) for prompt, group in pairs]
        return [preference for preference in ranked if preference is not None]


def _write_samples(path: Path, prompts: Sequence[Prompt], groups: Sequence[Sequence[Reply]]) -> None:
    write_json_lines(path, (
        {"prompt": prompt.messages[-1].content, "response": reply.text, "score": reply.score}
        for prompt, group in zip(prompts, groups, strict=True) for reply in group
    ))  # fmt: skip


def _row(record: Preference | Conversation, ranked: bool) -> dict[str, Any]:
    """A record in the layout that reads it back: messages, prompt-pair or, for a ranking, alpaca-ranked."""
    if isinstance(record, Conversation):
        return {"messages": plain(record.messages)}
    if not ranked:
        sides = {"chosen": record.chosen, "rejected": record.rejected}
        answers = {side: [{"role": "assistant", "content": text}] for side, text in sides.items()}
        return {"prompt": plain(record.prompt)} | answers
    system = [message.content for message in record.prompt if message.role == "system"]
    turns = [message.content for message in record.prompt if message.role != "system"]
    history = [list(turns[i : i + 2]) for i in range(0, len(turns) - 1, 2)]
    return {"system": "".join(system), "history": history, "instruction": turns[-1], "output": list(record.responses)}
