"""Measuring one model and its parent: the same rows, the same prompts, the same random numbers for both."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate
from pathlib import Path

from fairlead.algos.kl import kl_k1
from fairlead.config.common import ModelConfig
from fairlead.config.stages import EvalConfig
from fairlead.config.terms import Term
from fairlead.data.chat_template import ChatTemplate
from fairlead.data.examples import Example, RankedExample, Task, conversation_examples, ranked_examples, task_examples
from fairlead.data.language import is_chinese
from fairlead.data.load import Loaded, read_conversations, read_preferences, read_prompts
from fairlead.data.starter import resolve_paths
from fairlead.errors import ExitCode, UserError
from fairlead.evaluate import wording
from fairlead.evaluate.likelihood import measure_likelihoods
from fairlead.evaluate.preference_accuracy import Judged, judge
from fairlead.evaluate.probes import measure
from fairlead.evaluate.summary import (
    CHINESE_REPLIES,
    ENGLISH_REPLIES,
    Answer,
    Evaluation,
    Likelihood,
    Probes,
    StageSummary,
    compare_rewards,
    sequence_kl,
    success,
)
from fairlead.generate.engine import Engine
from fairlead.generate.requests import Response
from fairlead.models.build import add_frozen, ready
from fairlead.models.loading import tokenizer_in
from fairlead.models.outputs import per_sequence
from fairlead.models.roles import Roles
from fairlead.models.sources import Source
from fairlead.records import Rejection
from fairlead.rollout.rules import load_rules
from fairlead.rollout.sample import episodes, sample_responses, score_responses, scored_texts
from fairlead.runtime.environment import cache_folder
from fairlead.runtime.start import Runtime

SHOWN_ANSWERS = 24


@dataclass(frozen=True)
class _Said:
    """One model's answers: the first few as text, the rest as numbers."""

    replies: tuple[str, ...]
    probes: Probes
    scores: tuple[float, ...]  # empty without a reward model
    right: Mapping[str, tuple[bool, ...]]  # what each verifier found
    responses: Sequence[Response]  # empty when an earlier report was read

    def score(self, index: int) -> float | None:
        """What is shown beside an answer: the reward model's score, else the first verifier's 1 or 0, else nothing."""
        judged = self.scores or next(iter(self.right.values()), ())
        return float(judged[index]) if judged else None


@dataclass
class Bench:
    """Everything loaded, ready to measure."""

    config: EvalConfig
    runtime: Runtime
    subject: Source
    parent: Source | None
    reward: Source | None
    known: Evaluation | None  # what an earlier report says of the parent, measured in the same way
    roles: Roles
    template: ChatTemplate
    notes: list[str] = field(default_factory=list)  # which rows are left out, what may be chance

    @classmethod
    def of(
        cls,
        config: EvalConfig,
        runtime: Runtime,
        subject: Source,
        parent: Source | None,
        reward: Source | None,
        known: Evaluation | None,
    ) -> "Bench":
        """Load the models as the roles that they play."""
        roles = Roles()
        if subject.kind == "reward":
            add_frozen(roles, "reward", subject, "scores", runtime)
        else:
            add_frozen(roles, "policy", subject, "logprobs", runtime)
            if parent is not None:
                add_frozen(roles, "parent", parent, "logprobs", runtime)
            if reward is not None:
                add_frozen(roles, "reward", reward, "scores", runtime)
        ready(roles, ModelConfig(), runtime)
        template = ChatTemplate(tokenizer_in(subject.base.folder))
        return cls(config, runtime, subject, parent, reward, known, roles, template)

    def measure(self) -> tuple[Evaluation, dict[str, str]]:
        """All that the options ask for, and the digests of the files that were read."""
        digests: dict[str, str] = {}
        stage = self.subject.manifest.stage if self.subject.manifest else "base"
        summary = StageSummary(
            stage, self.subject.kind, model=_name(self.subject), parent=_name(self.parent) if self.parent else "",
        )  # fmt: skip
        groups = self._conversations(digests)
        policy, parent = "policy" in self.roles.roles, "parent" in self.roles.roles
        likelihoods = self._likelihoods("policy", groups) if policy else ()
        parent_likelihoods = (
            self.known.likelihoods if self.known else self._likelihoods("parent", groups) if parent else ()
        )
        judged = self._judged(digests)
        evaluation = Evaluation(
            summary, likelihoods=likelihoods, parent_likelihoods=parent_likelihoods, preferences=judged.preferences,
            grades=judged.grades,
        )  # fmt: skip
        if policy and self.config.prompts:
            evaluation = self._answers(evaluation, digests)
        return replace(evaluation, notes=tuple(self.notes)), digests

    def _conversations(self, digests: dict[str, str]) -> dict[str, list[Example]]:
        if not self.config.conversations:
            return {}
        loaded = read_conversations(resolve_paths(self.config.conversations, cache_folder(), "conversations"))
        digests |= loaded.digests
        groups: dict[str, list[Example]] = {}
        unusable: list[Rejection] = []
        for name, chinese in ((ENGLISH_REPLIES, False), (CHINESE_REPLIES, True)):
            records = [r for r in loaded.records if is_chinese(r.messages[-1].content) == chinese]
            examples, rejected = conversation_examples(records, self.template, self.config.max_length)
            unusable += rejected
            if examples:
                groups[name] = examples
        self._leave_out("conversations", loaded, unusable)
        return groups

    def _leave_out(self, what: str, loaded: Loaded, unusable: Sequence[Rejection]) -> None:
        """Say how many rows cannot be measured, and why; UserError when none is left."""
        rejected = [*loaded.rejections, *unusable]
        if not rejected:
            return
        why = "; ".join(f"{n} × {reason}" for reason, n in Counter(r.reason for r in rejected).most_common(3))
        if len(rejected) == loaded.num_rows:
            raise UserError(
                f"none of the {what} can be measured", where=", ".join(loaded.digests), got=why,
                fix="raise max_length, or mend the rows", exit_code=ExitCode.BAD_DATA,
            )  # fmt: skip
        self.notes.append(f"{len(rejected)} of {loaded.num_rows} {what} are left out: {why}")
        self._say(self.notes[-1])

    def _say(self, text: str) -> None:
        self.runtime.say(f"eval: {text}")

    def _named(self, role: str) -> str:
        source = {"policy": self.subject, "parent": self.parent, "reward": self.reward or self.subject}[role]
        assert source is not None
        return _name(source)

    def _likelihoods(self, role: str, groups: dict[str, list[Example]]) -> tuple[Likelihood, ...]:
        if groups:
            self._say(f"loss of {self._named(role)} on {sum(map(len, groups.values()))} conversations")
        return measure_likelihoods(self.roles, role, groups, self.config.batch, self.runtime)

    def _judged(self, digests: dict[str, str]) -> Judged:
        """What the reward model, or else the policy, says of ranked and graded responses."""
        role = "reward" if "reward" in self.roles.roles else "policy"
        source = self.reward or self.subject
        facts = source.manifest.facts if source.manifest and source.kind == "reward" else {}
        groups = {}
        for path in resolve_paths(self.config.preferences, cache_folder(), "preferences"):
            loaded = read_preferences([path])
            digests |= loaded.digests
            rows, unusable = ranked_examples(
                loaded.records, self.template, self.config.max_length, end_token=facts.get("score_at") == "end_token",
                paired=False,
            )  # fmt: skip
            self._leave_out(f"rows of {path.name}", loaded, unusable)
            groups[_group_name(path)] = _first_pairs(rows, self.config.max_pairs) if self.config.max_pairs else rows
        if groups:
            self._say(f"scores of {self._named(role)} on {sum(map(len, groups.values()))} rows")
        scale = (facts["grade_mean"], facts["grade_std"]) if "grade_mean" in facts else None
        judged = judge(self.roles, role, groups, self.config.batch, self.runtime, scale=scale)
        for doubt in judged.doubts:
            self._say(f"warning: {doubt}")
        self.notes += judged.doubts
        return judged

    def _answers(self, evaluation: Evaluation, digests: dict[str, str]) -> Evaluation:
        loaded = read_prompts(resolve_paths(self.config.prompts, cache_folder(), "prompts"))
        digests |= loaded.digests
        tasks, unusable = task_examples(loaded.records, self.template, self.config.max_length)
        self._leave_out("prompts", loaded, unusable)
        tasks = tasks[: self.config.max_prompts] if self.config.max_prompts else tasks
        self._require_answers(tasks)
        seed = self.runtime.seed
        child = self._said_by("policy", tasks)
        before = self._said_before(tasks)
        answers = [
            Answer(
                prompt=tasks[i].prompt, reply=child.replies[i],
                parent_reply=before.replies[i] if before else None, score=child.score(i),
                parent_score=before.score(i) if before else None,
            )
            for i in range(min(SHOWN_ANSWERS, len(tasks)))
        ]  # fmt: skip
        return replace(
            evaluation, answers=tuple(answers), probes=child.probes, parent_probes=before.probes if before else None,
            scores=child.scores, parent_scores=before.scores if before else (),
            rewards=compare_rewards(before.scores, child.scores, seed=seed) if before and before.scores else None,
            kl=sequence_kl(self._kl(tasks, child.responses), seed=seed) if before else None,
            successes=tuple(
                success(name, right, before.right[name] if before else None, seed=seed)
                for name, right in child.right.items()
            ),
        )  # fmt: skip

    def _require_answers(self, tasks: Sequence[Task]) -> None:
        """UserError where a verifier would compare with an answer that the row does not hold."""
        bare = [task for task in tasks if not task.answer]
        if bare and set(self.config.verifiers) - {"format"}:
            raise UserError(
                f"{len(bare)} of {len(tasks)} prompts come without the right answer", where=bare[0].source,
                fix="give rows with answers, or ask for no verifier but format", exit_code=ExitCode.BAD_DATA,
            )  # fmt: skip

    def _said_by(self, role: str, tasks: Sequence[Task]) -> "_Said":
        prompts = [task.input_ids for task in tasks]
        responses = self._sample(role, prompts)
        return _Said(
            tuple(self.template.decode(response.tokens) for response in responses[:SHOWN_ANSWERS]),
            self._probes(responses), tuple(self._scores(prompts, responses)) if self.reward else (),
            self._right(tasks, responses), responses,
        )  # fmt: skip

    def _said_before(self, tasks: Sequence[Task]) -> "_Said | None":
        """The parent's answers to the same prompts with the same random numbers; None without a parent."""
        if "parent" not in self.roles.roles:
            return None
        if self.known is None or self.known.probes is None:
            return self._said_by("parent", tasks)
        right = {one.verifier: one.right for one in self.known.successes}
        return _Said(tuple(one.reply for one in self.known.answers), self.known.probes, self.known.scores, right, ())

    def _probes(self, responses: Sequence[Response]) -> Probes:
        ends = self.template.end_token_ids
        rows = [tuple(token for token in response.tokens if token not in ends) for response in responses]
        return measure(rows, [response.finished for response in responses])

    def _sample(self, role: str, prompts: Sequence[tuple[int, ...]]) -> list[Response]:
        self._say(f"{len(prompts)} answers of {self._named(role)}")
        engine = Engine(self.roles, role, self.template.end_token_ids, self.runtime, decode=self.template.decode)
        seeds = [self.runtime.seed * 65_536 + i for i in range(len(prompts))]
        return sample_responses(engine, prompts, self.config.sampling, seeds=seeds, runtime=self.runtime)

    def _scores(self, prompts: Sequence[tuple[int, ...]], responses: Sequence[Response]) -> list[float]:
        assert self.reward is not None
        score_at = _score_at(self.reward)
        texts = scored_texts(prompts, responses, score_at=score_at, end_token_ids=self.template.end_token_ids)
        return score_responses(self.roles, "reward", texts, self.config.batch, self.runtime).tolist()

    def _right(self, tasks: Sequence[Task], responses: Sequence[Response]) -> dict[str, tuple[bool, ...]]:
        """What each verifier says of every response."""
        config = self.config
        rules = load_rules(
            [Term(name, 1.0) for name in config.verifiers], answer_pattern=config.answer_pattern,
            max_response_tokens=config.sampling.max_new_tokens,
        )  # fmt: skip
        found = rules.scores(tasks, responses, self.template)
        return {name: tuple(score == 1.0 for score in scores) for name, scores in found.items()}

    def _kl(self, tasks: Sequence[Task], responses: Sequence[Response]) -> list[float]:
        """Sequence KL from model to parent, estimated on the model's own responses at the sampling temperature."""
        rows = episodes([task.input_ids for task in tasks], responses)
        temperature = self.config.sampling.temperature or 1.0
        policy, parent = (
            per_sequence(self.roles, role, rows, self.config.batch, self.runtime, temperature=temperature)
            for role in ("policy", "parent")
        )
        return [float(kl_k1(p.double(), q.double()).sum()) for p, q in zip(policy, parent, strict=True)]


def _first_pairs(rows: Sequence[RankedExample], most: int) -> list[RankedExample]:
    """The first rows, so many that they make `most` pairs; a row with one graded response counts as a pair."""
    before = accumulate((max(1, len(row.pair_indices)) for row in rows), initial=0)
    return [row for row, count in zip(rows, before, strict=False) if count < most]


def _group_name(path: Path) -> str:
    """How a file of pairs is called in the report."""
    return "held-out pairs" if path.stem == "held_out" else path.stem


def _score_at(reward: Source) -> str:
    """Where this reward model learnt to give its score."""
    assert reward.manifest is not None
    return reward.manifest.facts["score_at"]


def _name(source: Source) -> str:
    return wording.place(source.name)
