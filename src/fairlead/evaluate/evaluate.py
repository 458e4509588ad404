"""`fairlead eval`: one model beside its parent, on the same held-out rows, prompts and random numbers."""

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import accumulate, count
from pathlib import Path

from fairlead.algos.kl import kl_k1
from fairlead.artifacts.atomic import write_text
from fairlead.artifacts.hashing import sha256_file
from fairlead.artifacts.journal import Journal
from fairlead.artifacts.lock import lock
from fairlead.artifacts.manifest import (
    Manifest,
    Parent,
    package_versions,
    read_manifest,
    require_kind,
    write_manifest,
)
from fairlead.artifacts.stages import is_finished, stage_folder
from fairlead.config.common import ModelConfig
from fairlead.config.stages import EvalConfig
from fairlead.config.terms import Term
from fairlead.data.chat_template import ChatTemplate
from fairlead.data.examples import Example, RankedExample, conversation_examples, prompt_examples, ranked_examples
from fairlead.data.language import is_chinese
from fairlead.data.load import Loaded, read_conversations, read_preferences, read_prompts
from fairlead.data.starter import licences, resolve_paths
from fairlead.errors import ExitCode, UserError
from fairlead.evaluate import wording
from fairlead.evaluate.card import model_card
from fairlead.evaluate.likelihood import measure_likelihoods
from fairlead.evaluate.preference_accuracy import Judged, judge
from fairlead.evaluate.probes import measure
from fairlead.evaluate.report import stage_report
from fairlead.evaluate.summary import (
    CHINESE_REPLIES,
    ENGLISH_REPLIES,
    Answer,
    Evaluation,
    Likelihood,
    Probes,
    StageSummary,
    compare_rewards,
    read_evaluation,
    sequence_kl,
    success,
    write_evaluation,
)
from fairlead.generate.engine import Engine, Response
from fairlead.models.build import add_frozen, ready
from fairlead.models.loading import tokenizer_in
from fairlead.models.outputs import per_sequence
from fairlead.models.roles import Roles
from fairlead.models.sources import Source, recorded, resolve
from fairlead.records import Prompt, Rejection
from fairlead.rewards.terms import Sample, rule_scores
from fairlead.rollout.sample import episodes, sample_responses, score_responses, scored_texts
from fairlead.runtime.environment import cache_folder
from fairlead.runtime.machine import peak_memory_bytes
from fairlead.runtime.start import Runtime, start

SHOWN_ANSWERS = 24
DEFAULT_RUN = Path("runs/default")  # for a model that lies in no run
NAMES = {"model", "parent", "reward_model", "output"}  # of models: their digests are compared instead


def evaluate(config: EvalConfig) -> Path:
    """Measure, write `evaluation.json` and the report; returns the folder.

    A finished report that says the same already is kept, one of another model or of other options stays beside it.
    """
    if not config.model:
        raise UserError("no model was named", where="model", fix="fairlead eval RUN_OR_MODEL --prompts FILE")
    runtime = start(config.runtime)
    subject = resolve(config.model)
    parent = _parent_of(config, subject)
    reward = _reward_of(config)
    run = Path(config.output) if config.output else subject.artifact.parent if subject.artifact else DEFAULT_RUN
    judges = {"reward": reward} if reward else {}
    folder = _folder_of_report(run, config, {"model": subject, **({"parent": parent} if parent else {}), **judges})
    if is_finished(folder):
        runtime.say(f"eval: {folder} says this already, skipped")
        return folder
    began = time.monotonic()
    known = None
    if parent is not None:
        earlier = _folder_of_report(run, config, {"model": parent, **judges})
        if is_finished(earlier):
            known = read_evaluation(earlier / "evaluation.json")
    bench = _Bench.of(config, runtime, subject, parent, reward, known)
    for note in bench.roles.notes:
        runtime.say(f"eval: {note}")
    evaluation, digests = bench.measure()
    if runtime.is_main:
        with lock(folder):
            folder.mkdir(parents=True, exist_ok=True)
            _save(folder, _report_name(subject), bench, evaluation, digests, time.monotonic() - began)
    runtime.ranks.barrier()
    return folder


def _save(
    folder: Path, name: str, bench: "_Bench", evaluation: Evaluation, digests: Mapping[str, str], seconds: float
) -> None:
    """The numbers, the manifest (the commit) and the pages."""
    write_evaluation(evaluation, folder / "evaluation.json")
    with Journal(folder / "samples.jsonl") as samples:
        samples.truncate(0)
        for row in evaluation.answers:
            samples.append({"step": 0, "prompt": row.prompt, "response": row.reply, "score": row.score})
    runtime = bench.runtime
    roles = {"model": bench.subject, "parent": bench.parent, "reward": bench.reward}
    models = {role: source for role, source in roles.items() if source is not None}
    manifest = Manifest(
        kind="report", stage=name, config=bench.config.model_dump(mode="json"), data_digests=dict(digests),
        parents={role: Parent(path=source.name, digest=source.digest) for role, source in models.items()},
        versions=package_versions(), num_threads=runtime.num_threads, world_size=runtime.ranks.world_size,
        seed=runtime.seed, wall_seconds=seconds, peak_memory_bytes=peak_memory_bytes(runtime.device),
        facts={"licences": licences([source.name for source in models.values()], digests)},
    )  # fmt: skip
    write_manifest(folder, manifest)
    write_text(folder / "README.md", model_card(folder))
    stage_report(folder, None)


def _report_name(subject: Source) -> str:
    return f"eval-{subject.manifest.stage}" if subject.manifest else "eval"


def _folder_of_report(run: Path, config: EvalConfig, models: Mapping[str, Source]) -> Path:
    """The finished report that tells what is asked for, else where a new one goes; none is ever written over."""
    name = _report_name(models["model"])
    folders = (stage_folder(run, name if number == 1 else f"{name}-{number}") for number in count(1))
    return next(folder for folder in folders if not is_finished(folder) or _tells(folder, config, models))


def _tells(folder: Path, config: EvalConfig, models: Mapping[str, Source]) -> bool:
    """Whether this is a finished report of these models, by digest, with the same options on the same rows."""
    manifest = read_manifest(folder)
    options = config.model_dump(mode="json", exclude=NAMES)
    return (
        options == {key: value for key, value in manifest.config.items() if key not in NAMES}
        and all(role in manifest.parents and manifest.parents[role].digest == m.digest for role, m in models.items())
        and all(Path(path).is_file() and sha256_file(Path(path)) == d for path, d in manifest.data_digests.items())
    )


def _parent_of(config: EvalConfig, subject: Source) -> Source | None:
    if config.parent:
        return resolve(config.parent)
    if subject.manifest is None or subject.artifact is None or "model" not in subject.manifest.parents:
        return None
    named, base = subject.manifest.parents["model"], subject.manifest.base
    revision = base.revision or None if base and base.name == named.path else None
    parent = recorded(named.path, named.digest, subject.artifact, revision=revision)
    if parent.digest != named.digest:
        raise UserError(
            "the parent is not the model any more that this one was made from", where=named.path,
            got=f"digest {parent.digest[:12]}", want=f"digest {named.digest[:12]}, as {subject.name} says",
            fix="restore it, or name what to compare with: --parent MODEL", exit_code=ExitCode.BAD_DATA,
        )  # fmt: skip
    return parent


def _reward_of(config: EvalConfig) -> Source | None:
    if not config.reward_model:
        return None
    require_kind(Path(config.reward_model), ("reward",), wanted_for="eval's reward_model")
    return resolve(config.reward_model)


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
class _Bench:
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
    ) -> "_Bench":
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
        loaded = read_conversations(resolve_paths(self.config.conversations, cache_folder()))
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
        for path in resolve_paths(self.config.preferences, cache_folder()):
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
        loaded = read_prompts(resolve_paths(self.config.prompts, cache_folder()))
        digests |= loaded.digests
        prompts, unusable = prompt_examples(loaded.records, self.template, self.config.max_length)
        self._leave_out("prompts", loaded, unusable)
        left_out = {f"{rejected.path}:{rejected.line}" for rejected in unusable}
        records = [record for record in loaded.records if record.source not in left_out]
        count = self.config.max_prompts or len(records)
        records, prompts = records[:count], prompts[:count]
        assert len(records) == len(prompts)
        self._require_answers(records)
        seed = self.runtime.seed
        child = self._said_by("policy", prompts, records)
        before = self._said_before(prompts, records)
        answers = [
            Answer(
                prompt=records[i].messages[-1].content, reply=child.replies[i],
                parent_reply=before.replies[i] if before else None, score=child.score(i),
                parent_score=before.score(i) if before else None,
            )
            for i in range(min(SHOWN_ANSWERS, len(prompts)))
        ]  # fmt: skip
        return replace(
            evaluation, answers=tuple(answers), probes=child.probes, parent_probes=before.probes if before else None,
            scores=child.scores, parent_scores=before.scores if before else (),
            rewards=compare_rewards(before.scores, child.scores, seed=seed) if before and before.scores else None,
            kl=sequence_kl(self._kl(prompts, child.responses), seed=seed) if before else None,
            successes=tuple(
                success(name, right, before.right[name] if before else None, seed=seed)
                for name, right in child.right.items()
            ),
        )  # fmt: skip

    def _require_answers(self, records: Sequence[Prompt]) -> None:
        """UserError where a verifier would compare with an answer that the row does not hold."""
        bare = [record for record in records if not record.answer]
        if bare and set(self.config.verifiers) - {"format"}:
            raise UserError(
                f"{len(bare)} of {len(records)} prompts come without the right answer", where=bare[0].source,
                fix="give rows with answers, or ask for no verifier but format", exit_code=ExitCode.BAD_DATA,
            )  # fmt: skip

    def _said_by(self, role: str, prompts: Sequence[tuple[int, ...]], records: Sequence[Prompt]) -> "_Said":
        responses = self._sample(role, prompts)
        return _Said(
            tuple(self.template.decode(response.tokens) for response in responses[:SHOWN_ANSWERS]),
            self._probes(responses), tuple(self._scores(prompts, responses)) if self.reward else (),
            self._right(records, responses), responses,
        )  # fmt: skip

    def _said_before(self, prompts: Sequence[tuple[int, ...]], records: Sequence[Prompt]) -> "_Said | None":
        """The parent's answers to the same prompts with the same random numbers; None without a parent."""
        if "parent" not in self.roles.roles:
            return None
        if self.known is None or self.known.probes is None:
            return self._said_by("parent", prompts, records)
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

    def _right(self, records: Sequence[Prompt], responses: Sequence[Response]) -> dict[str, tuple[bool, ...]]:
        """What each verifier says of every response."""
        samples = [
            Sample(record.messages[-1].content, self.template.decode(response.tokens), record.answer, 0)
            for record, response in zip(records, responses, strict=True)
        ]
        judge = partial(rule_scores, samples=samples, pattern=self.config.answer_pattern, max_tokens=0)
        return {name: tuple(score == 1.0 for score in judge(Term(name, 1.0))) for name in self.config.verifiers}

    def _kl(self, prompts: Sequence[tuple[int, ...]], responses: Sequence[Response]) -> list[float]:
        """Sequence KL from model to parent, estimated on the model's own responses at the sampling temperature."""
        rows = episodes(prompts, responses)
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
