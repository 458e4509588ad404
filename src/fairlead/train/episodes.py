"""Episodes on their way through a mini-batch, for every loop that samples before it learns."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from torch import Tensor

from fairlead.algos.kl import kl_k1, kl_k3
from fairlead.algos.masked import masked_mean
from fairlead.batches import Rollout
from fairlead.config.common import MicroBatchConfig
from fairlead.data.chat_template import ChatTemplate
from fairlead.data.examples import Example
from fairlead.runtime.start import Runtime
from fairlead.train.accumulate import MicroBatch, micro_batches
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

    def shares(self, batch: MicroBatchConfig, runtime: Runtime) -> list[MicroBatch]:
        """This rank's micro-batches."""
        return micro_batches([len(example.input_ids) for example in self.examples], batch, runtime)


def response_seeds(seed: int, iteration: int, count: int) -> list[int]:
    """One seed per response of an iteration, different in every iteration."""
    first = (seed * 1_000_003 + iteration) * 65_536
    return [(first + i) % 2**63 for i in range(count)]


def describe_rollout(rollout: Rollout) -> dict[str, float]:
    """What the rollout was like, before it was learnt from."""
    mask = rollout.response_mask
    kl = kl_k1(rollout.old_logprobs, rollout.reference_logprobs)
    k3 = kl_k3(rollout.old_logprobs, rollout.reference_logprobs)
    gap = (rollout.sampler_logprobs - rollout.old_logprobs).abs()
    return {
        "score_mean": float(rollout.scores.mean()),
        "score_std": float(rollout.scores.std(correction=0)),
        "kl_mean": float((kl * mask).sum(1).mean()),
        "kl_k3_mean": float((k3 * mask).sum(1).mean()),
        "response_length": float(mask.sum(1).float().mean()),
        "end_token_rate": float(rollout.finished.float().mean()),
        "sampler_gap": float(masked_mean(gap, mask)),
    }


def show_episodes(stage: Stage, rollout: Rollout, template: ChatTemplate, step: int, rows: Sequence[int]) -> None:
    """Some episodes of the iteration, as text."""
    for row in rows:
        tokens = rollout.responses[row][rollout.response_mask[row]].tolist()
        stage.sample(
            {"step": step, "prompt": template.decode(rollout.prompts[row]), "response": template.decode(tokens),
             "score": float(rollout.scores[row])}
        )  # fmt: skip
