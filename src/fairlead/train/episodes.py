"""Episodes on their way through a mini-batch, for every loop that samples before it learns."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from torch import Tensor

from fairlead.algos.kl import kl_k1, kl_k3
from fairlead.algos.masked import masked_mean
from fairlead.batches import PackedBatch, Rollout
from fairlead.config.common import MicroBatchConfig
from fairlead.config.online import OnlineConfig
from fairlead.data.chat_template import ChatTemplate
from fairlead.data.collate import collate
from fairlead.data.examples import Example
from fairlead.evaluate.probes import distinct_n
from fairlead.generate.engine import Engine
from fairlead.generate.requests import Response
from fairlead.models.build import add_frozen, add_moving
from fairlead.models.roles import Roles
from fairlead.models.sources import Source
from fairlead.rollout.sample import sample_responses
from fairlead.runtime.start import Runtime
from fairlead.train.accumulate import MicroBatch, micro_batches_by_prompt
from fairlead.train.moving import MovingAverage
from fairlead.train.optimizer import Optimizer
from fairlead.train.stage import Stage


@dataclass(frozen=True)
class MiniBatch:
    """Episodes of one optimizer step."""

    rollout: Rollout
    advantages: Tensor  # [B, R]

    @cached_property
    def examples(self) -> list[Example]:
        """Prompt and response of each episode, response tokens as targets."""
        rows = []
        for prompt, response, mask in zip(
            self.rollout.prompts, self.rollout.responses, self.rollout.response_mask, strict=True
        ):
            tokens = response[mask].tolist()
            rows.append(Example((*prompt, *tokens), (False,) * len(prompt) + (True,) * len(tokens), ""))
        return rows

    @property
    def num_tokens(self) -> int:
        """Response tokens: the global denominator, known to every rank."""
        return int(self.rollout.response_mask.sum())

    def of_targets(self, matrix: Tensor, rows: tuple[int, ...]) -> Tensor:
        """The entries of a [B, R] matrix at the response tokens of these rows, in the order of a batch's targets."""
        index = list(rows)
        return matrix[index][self.rollout.response_mask[index]]

    def shares(self, batch: MicroBatchConfig, roles: Roles, role: str, runtime: Runtime) -> list[MicroBatch]:
        """This rank's micro-batches for the role."""
        alone = [(example,) for example in self.examples]
        return micro_batches_by_prompt(alone, batch, runtime, share_prompts=roles.packs(role))

    def batch(self, share: MicroBatch, roles: Roles, role: str) -> PackedBatch:
        """The tokens of a micro-batch, laid out as the role reads them."""
        return collate([self.examples[i] for i in share.rows], share_prompts=roles.packs(role))


def response_seeds(seed: int, iteration: int, count: int) -> list[int]:
    """One seed per response of an iteration, different in every iteration."""
    first = (seed * 1_000_003 + iteration) * 65_536
    return [(first + i) % 2**63 for i in range(count)]


def draw_responses(
    engine: Engine, prompts: Sequence[tuple[int, ...]], config: OnlineConfig, seeds: Sequence[int], runtime: Runtime
) -> list[Response]:
    """One response to each prompt, of its own seed and length limit."""
    limits = response_limits(config, seeds)
    return sample_responses(engine, prompts, config.sampling, seeds=seeds, limits=limits, runtime=runtime)


def response_limits(config: OnlineConfig, seeds: Sequence[int]) -> list[int]:
    """Tokens that each response may have, drawn from its own seed when the length sampler is on."""
    longest, shortest = config.sampling.max_new_tokens, config.length_sampler_min_tokens
    if not shortest:
        return [longest] * len(seeds)
    return [int(np.random.default_rng(seed).integers(shortest, longest, endpoint=True)) for seed in seeds]


def describe_rollout(rollout: Rollout) -> dict[str, float]:
    """What the rollout was like, before it was learnt from."""
    mask = rollout.response_mask
    kl = kl_k1(rollout.old_logprobs, rollout.reference_logprobs)
    k3 = kl_k3(rollout.old_logprobs, rollout.reference_logprobs)
    said = [row[kept].tolist() for row, kept in zip(rollout.responses, mask, strict=True)]
    gap = (rollout.sampler_logprobs - rollout.old_logprobs).abs()
    return {
        "score_mean": float(rollout.scores.mean()),
        "score_std": float(rollout.scores.std(correction=0)),
        "kl_mean": float((kl * mask).sum(1).mean()),
        "kl_k3_mean": float((k3 * mask).sum(1).mean()),
        "response_length": float(mask.sum(1).float().mean()),
        "repetition": sum(1.0 - distinct_n([row], 3) for row in said if len(row) > 2) / len(said),
        "end_token_rate": float(rollout.finished.float().mean()),
        "sampler_gap": float(masked_mean(gap, mask)),
    }


def add_reference(roles: Roles, source: Source, config: OnlineConfig, runtime: Runtime) -> None:
    """What the KL is measured to; one that moves has weights of its own."""
    if config.reference == "frozen":
        add_frozen(roles, "reference", source, "logprobs", runtime)
    else:
        add_moving(roles, "reference", source, "logprobs", config.model, runtime)


class Followers:
    """The weights that follow the policy as the options ask for: the reference, and the average that is saved."""

    def __init__(self, roles: Roles, policy: Optimizer, config: OnlineConfig) -> None:
        self._config = config
        self._all: dict[str, MovingAverage] = {}
        if config.reference != "frozen":
            self._all["reference"] = MovingAverage(policy.masters, list(roles.own("reference").values()))
            self._all["reference"].publish()
        if config.policy_ema:
            self._all["average"] = MovingAverage(policy.masters, list(roles.trainable("policy").values()))

    def after_step(self) -> None:
        """The policy took an optimizer step."""
        if self._config.policy_ema:
            self._all["average"].follow(self._config.policy_ema)

    def after_iteration(self, iteration: int) -> None:
        """The policy learnt from a rollout."""
        config = self._config
        if config.reference == "ema":
            self._all["reference"].follow(config.reference_decay)
        elif config.reference == "refreshed" and (iteration + 1) % config.reference_every == 0:
            self._all["reference"].follow(0.0)
        if config.reference != "frozen":
            self._all["reference"].publish()

    def at_the_end(self) -> None:
        """Training is over: the policy becomes what is to be saved."""
        if self._config.policy_ema:
            self._all["average"].publish()

    def state(self) -> dict[str, Tensor]:
        """All of them by name, for a checkpoint."""
        return {f"{name}/{key}": tensor for name, one in self._all.items() for key, tensor in one.state().items()}

    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        """The inverse of `state`."""
        for name, one in self._all.items():
            mark = f"{name}/"
            one.load_state({key.removeprefix(mark): t for key, t in tensors.items() if key.startswith(mark)})
        if "reference" in self._all:
            self._all["reference"].publish()


def show_episodes(stage: Stage, rollout: Rollout, template: ChatTemplate, step: int, rows: Sequence[int]) -> None:
    """Some episodes of the iteration, as text."""
    for row in rows:
        tokens = rollout.responses[row][rollout.response_mask[row]].tolist()
        stage.sample(
            {"step": step, "prompt": template.decode(rollout.prompts[row]), "response": template.decode(tokens),
             "score": float(rollout.scores[row])}
        )  # fmt: skip
