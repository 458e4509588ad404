"""`fairlead eval`: one model beside its parent, on the same held-out rows, prompts and random numbers."""

import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
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
from fairlead.data.chat_template import ChatTemplate
from fairlead.data.examples import Example, conversation_examples, preference_examples, prompt_examples
from fairlead.data.language import is_chinese
from fairlead.data.load import check_rejections, read_conversations, read_preferences, read_prompts
from fairlead.data.starter import resolve_paths
from fairlead.errors import UserError
from fairlead.evaluate.card import model_card
from fairlead.evaluate.likelihood import measure_likelihoods
from fairlead.evaluate.preference_accuracy import measure_preferences
from fairlead.evaluate.probes import measure
from fairlead.evaluate.report import stage_report
from fairlead.evaluate.summary import (
    CHINESE_REPLIES,
    ENGLISH_REPLIES,
    Answer,
    Evaluation,
    Likelihood,
    PreferenceAccuracy,
    Probes,
    StageSummary,
    compare_rewards,
    read_evaluation,
    sequence_kl,
    write_evaluation,
)
from fairlead.generate.engine import Engine, Response
from fairlead.models.build import add_frozen, ready
from fairlead.models.loading import tokenizer_in
from fairlead.models.outputs import per_sequence
from fairlead.models.roles import Roles
from fairlead.models.sources import Source, resolve
from fairlead.rollout.sample import episodes, sample_responses, score_responses, scored_texts
from fairlead.runtime.environment import cache_folder
from fairlead.runtime.machine import peak_memory_bytes
from fairlead.runtime.start import Runtime, start

SHOWN_ANSWERS = 24
NAMES = {"model", "parent", "reward_model"}  # of models: their digests are compared instead


def evaluate(config: EvalConfig) -> Path:
    """Measure, write `evaluation.json` and the report; returns the folder. A finished, unchanged one is kept."""
    if not config.model:
        raise UserError("no model was named", where="model", fix="fairlead eval RUN_OR_MODEL --prompts FILE")
    runtime = start(config.runtime)
    subject = resolve(config.model)
    parent = _parent_of(config, subject)
    reward = _reward_of(config)
    name = _report_name(subject)
    folder = stage_folder(Path(config.output), name)
    judges = {"reward": reward} if reward else {}
    if _tells(folder, config, {"model": subject, **({"parent": parent} if parent else {}), **judges}):
        return folder
    began = time.monotonic()
    known = None
    if parent is not None:
        earlier = stage_folder(Path(config.output), _report_name(parent))
        if _tells(earlier, config, {"model": parent, **judges}):
            known = read_evaluation(earlier / "evaluation.json")
    bench = _Bench.of(config, runtime, subject, parent, reward, known)
    if runtime.is_main:
        for note in bench.roles.notes:
            print(f"eval: {note}", file=sys.stderr, flush=True)
    evaluation, digests = bench.measure()
    if runtime.is_main:
        with lock(folder):
            folder.mkdir(parents=True, exist_ok=True)
            write_evaluation(evaluation, folder / "evaluation.json")
            with Journal(folder / "samples.jsonl") as samples:
                samples.truncate(0)
                for row in evaluation.answers:
                    samples.append({"step": 0, "prompt": row.prompt, "response": row.reply, "score": row.score})
            parents = {"model": subject, "parent": parent, "reward": reward}
            manifest = Manifest(
                kind="report", stage=name, config=config.model_dump(mode="json"), data_digests=digests,
                parents={k: Parent(path=v.name, digest=v.digest) for k, v in parents.items() if v is not None},
                versions=package_versions(), num_threads=runtime.num_threads, world_size=runtime.ranks.world_size,
                seed=runtime.seed, wall_seconds=time.monotonic() - began,
                peak_memory_bytes=peak_memory_bytes(runtime.device),
            )  # fmt: skip
            write_manifest(folder, manifest)
            write_text(folder / "README.md", model_card(folder))
            stage_report(folder, None)
    runtime.ranks.barrier()
    return folder


def _report_name(subject: Source) -> str:
    return f"eval-{subject.manifest.stage}" if subject.manifest else "eval"


def _tells(folder: Path, config: EvalConfig, models: Mapping[str, Source]) -> bool:
    """Whether this is a finished report of these models, by digest, with the same options on the same rows."""
    if not is_finished(folder):
        return False
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
    if subject.manifest and "model" in subject.manifest.parents:
        return resolve(subject.manifest.parents["model"].path)
    return None


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
    responses: Sequence[Response]  # empty when an earlier report was read


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
        evaluation = Evaluation(
            summary, likelihoods=likelihoods, parent_likelihoods=parent_likelihoods,
            preferences=self._preferences(digests),
        )  # fmt: skip
        return (self._answers(evaluation, digests) if policy and self.config.prompts else evaluation), digests

    def _conversations(self, digests: dict[str, str]) -> dict[str, list[Example]]:
        if not self.config.conversations:
            return {}
        loaded = read_conversations(resolve_paths(self.config.conversations, cache_folder()))
        digests |= loaded.digests
        groups: dict[str, list[Example]] = {}
        for name, chinese in ((ENGLISH_REPLIES, False), (CHINESE_REPLIES, True)):
            records = [r for r in loaded.records if is_chinese(r.messages[-1].content) == chinese]
            examples, _ = conversation_examples(records, self.template, self.config.max_length)
            if examples:
                groups[name] = examples
        return groups

    def _likelihoods(self, role: str, groups: dict[str, list[Example]]) -> tuple[Likelihood, ...]:
        return measure_likelihoods(self.roles, role, groups, self.config.batch, self.runtime)

    def _preferences(self, digests: dict[str, str]) -> tuple[PreferenceAccuracy, ...]:
        role = "reward" if "reward" in self.roles.roles else "policy"
        source = self.reward or self.subject
        end_token = source.kind == "reward" and _score_at(source) == "end_token"
        groups = {}
        for path in resolve_paths(self.config.preferences, cache_folder()):
            loaded = read_preferences([path])
            digests |= loaded.digests
            pairs, _ = preference_examples(loaded.records, self.template, self.config.max_length, end_token=end_token)
            groups[_group_name(path)] = pairs[: self.config.max_pairs] if self.config.max_pairs else pairs
        return measure_preferences(self.roles, role, groups, self.config.batch, self.runtime)

    def _answers(self, evaluation: Evaluation, digests: dict[str, str]) -> Evaluation:
        loaded = read_prompts(resolve_paths(self.config.prompts, cache_folder()))
        digests |= loaded.digests
        records = loaded.records[: self.config.max_prompts] if self.config.max_prompts else loaded.records
        prompts, too_long = prompt_examples(records, self.template, self.config.max_length)
        check_rejections(too_long, len(records), max_reject_rate=0.0)
        seed = self.runtime.seed
        child = self._said_by("policy", prompts)
        before = self._said_before(prompts)
        answers = [
            Answer(
                prompt=records[i].messages[-1].content, reply=child.replies[i],
                parent_reply=before.replies[i] if before else None, score=_at(child.scores, i),
                parent_score=_at(before.scores, i) if before else None,
            )
            for i in range(min(SHOWN_ANSWERS, len(prompts)))
        ]  # fmt: skip
        return replace(
            evaluation, answers=tuple(answers), probes=child.probes, parent_probes=before.probes if before else None,
            scores=child.scores, parent_scores=before.scores if before else (),
            rewards=compare_rewards(before.scores, child.scores, seed=seed) if before and before.scores else None,
            kl=sequence_kl(self._kl(prompts, child.responses), seed=seed) if before else None,
        )  # fmt: skip

    def _said_by(self, role: str, prompts: Sequence[tuple[int, ...]]) -> "_Said":
        responses = self._sample(role, prompts)
        return _Said(
            tuple(self.template.decode(response.tokens) for response in responses[:SHOWN_ANSWERS]),
            self._probes(responses), tuple(self._scores(prompts, responses)) if self.reward else (), responses,
        )  # fmt: skip

    def _said_before(self, prompts: Sequence[tuple[int, ...]]) -> "_Said | None":
        """The parent's answers to the same prompts with the same random numbers; None without a parent."""
        if "parent" not in self.roles.roles:
            return None
        if self.known is None or self.known.probes is None:
            return self._said_by("parent", prompts)
        return _Said(tuple(one.reply for one in self.known.answers), self.known.probes, self.known.scores, ())

    def _probes(self, responses: Sequence[Response]) -> Probes:
        ends = self.template.end_token_ids
        rows = [tuple(token for token in response.tokens if token not in ends) for response in responses]
        return measure(rows, [response.finished for response in responses])

    def _sample(self, role: str, prompts: Sequence[tuple[int, ...]]) -> list[Response]:
        engine = Engine(self.roles, role, self.template.end_token_ids, self.runtime, decode=self.template.decode)
        seeds = [self.runtime.seed * 65_536 + i for i in range(len(prompts))]
        return sample_responses(engine, prompts, self.config.sampling, seeds=seeds, runtime=self.runtime)

    def _scores(self, prompts: Sequence[tuple[int, ...]], responses: Sequence[Response]) -> list[float]:
        assert self.reward is not None
        score_at = _score_at(self.reward)
        texts = scored_texts(prompts, responses, score_at=score_at, end_token_ids=self.template.end_token_ids)
        return score_responses(self.roles, "reward", texts, self.config.batch, self.runtime).tolist()

    def _kl(self, prompts: Sequence[tuple[int, ...]], responses: Sequence[Response]) -> list[float]:
        """Sequence KL from model to parent, estimated on the model's own responses at the sampling temperature."""
        rows = episodes(prompts, responses)
        temperature = self.config.sampling.temperature or 1.0
        policy, parent = (
            per_sequence(self.roles, role, rows, self.config.batch, self.runtime, temperature=temperature)
            for role in ("policy", "parent")
        )
        return [float(kl_k1(p.double(), q.double()).sum()) for p, q in zip(policy, parent, strict=True)]


def _at(scores: Sequence[float], index: int) -> float | None:
    return scores[index] if scores else None


def _group_name(path: Path) -> str:
    """How a file of pairs is called in the report."""
    return "held-out pairs" if path.stem == "held_out" else path.stem


def _score_at(reward: Source) -> str:
    """Where this reward model learnt to give its score."""
    assert reward.manifest is not None
    return reward.manifest.facts["score_at"]


def _name(source: Source) -> str:
    return source.artifact.name if source.artifact else source.name
