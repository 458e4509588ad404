"""The tensors that pass between data, models and trainers: every field with shape, dtype and unit.

Shape letters of the whole package: B batch, T prompt+response, P prompt, R response, V vocabulary, N packed tokens,
M targets (trained or scored tokens), S packed sequences, D width.
"""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


@dataclass(frozen=True)
class PackedBatch:
    """Sequences laid end to end in one row, without padding.

    `targets` are the indices (into the N tokens, ascending, never a token that nothing stands before) of the tokens
    whose log-probability matters; `predictors` say where what predicts them stands. `weights` scales each target in a
    sum; a micro-batch that only keeps ranks in step has weights 0.

    A sequence may begin with tokens of an earlier one: `prefixes` says for each sequence where those begin among the N
    tokens and how many they are (0: none). They are not laid out again, and `lengths` counts a sequence's own tokens.
    """

    input_ids: Int[Tensor, "N"]  # int64
    position_ids: Int[Tensor, "N"]  # int64, 0.. inside each sequence, its prefix included
    lengths: tuple[int, ...]  # tokens per sequence, each >= 1, sum N
    targets: Int[Tensor, "M"]  # int64
    weights: Float[Tensor, "M"]  # float32
    prefixes: tuple[tuple[int, int], ...] = ()  # (start, tokens) per sequence, or nothing where none is shared

    @property
    def num_tokens(self) -> int:
        """N, the tokens of all sequences."""
        return int(self.input_ids.numel())

    @property
    def starts(self) -> Int[Tensor, "S"]:
        """Index of the first token of each sequence."""
        lengths = torch.tensor(self.lengths, dtype=torch.int64, device=self.input_ids.device)
        return lengths.cumsum(0) - lengths

    @property
    def last_tokens(self) -> Int[Tensor, "S"]:
        """Index of the last token of each sequence."""
        return torch.tensor(self.lengths, dtype=torch.int64, device=self.input_ids.device).cumsum(0) - 1

    @property
    def predictors(self) -> Int[Tensor, "M"]:
        """Index of the token that predicts each target: the one before it, or the last of the sequence's prefix."""
        before = self.targets - 1
        if not self.prefixes:
            return before
        first = self.targets == self.starts[self.sequence_of_target]
        ends = torch.tensor([start + count - 1 for start, count in self.prefixes], device=before.device)
        return torch.where(first, ends[self.sequence_of_target], before)

    @property
    def sequence_of_target(self) -> Int[Tensor, "M"]:
        """Which sequence each target belongs to."""
        return torch.bucketize(self.targets, self.last_tokens)

    @property
    def num_targets(self) -> Int[Tensor, "S"]:
        """How many targets each sequence has."""
        return torch.bincount(self.sequence_of_target, minlength=len(self.lengths))

    def without_weight(self) -> "PackedBatch":
        """The same tokens, counting for nothing."""
        return replace(self, weights=torch.zeros_like(self.weights))

    def to(self, device: torch.device) -> "PackedBatch":
        """The batch on another device."""
        return replace(
            self,
            input_ids=self.input_ids.to(device),
            position_ids=self.position_ids.to(device),
            targets=self.targets.to(device),
            weights=self.weights.to(device),
        )


@dataclass(frozen=True)
class PairBatch:
    """Preference pairs: sequence 2i of `packed` is the chosen one of pair i, sequence 2i + 1 the rejected one.

    `pair_weights` is what a pair counts: 1, less where a row has several, 0 in a micro-batch that only keeps ranks in
    step.
    """

    packed: PackedBatch
    pair_weights: Float[Tensor, "P"]  # float32

    @property
    def num_pairs(self) -> int:
        """P, the pairs of this batch."""
        return int(self.pair_weights.numel())

    def without_weight(self) -> "PairBatch":
        """The same pairs, counting for nothing."""
        return PairBatch(self.packed.without_weight(), torch.zeros_like(self.pair_weights))

    def to(self, device: torch.device) -> "PairBatch":
        """The batch on another device."""
        return PairBatch(self.packed.to(device), self.pair_weights.to(device))


@dataclass(frozen=True)
class RankedBatch:
    """Ranked responses, each scored once: pair p says that sequence `better[p]` is ranked above `worse[p]`.

    The weights of the pairs of one row sum to 1 (Ouyang et al. 2022, eq. 1), those of its responses as well; all are 0
    in a micro-batch that only keeps ranks in step.
    """

    packed: PackedBatch
    better: Int[Tensor, "P"]  # int64
    worse: Int[Tensor, "P"]  # int64
    pair_weights: Float[Tensor, "P"]  # float32
    grades: Float[Tensor, "S"]  # float32, one per response; 0 where there are none
    response_weights: Float[Tensor, "S"]  # float32

    def without_weight(self) -> "RankedBatch":
        """The same responses, counting for nothing."""
        pairs, responses = torch.zeros_like(self.pair_weights), torch.zeros_like(self.response_weights)
        return replace(self, pair_weights=pairs, response_weights=responses)

    def to(self, device: torch.device) -> "RankedBatch":
        """The batch on another device."""
        moved = {name: getattr(self, name).to(device) for name in self.__dataclass_fields__}
        return RankedBatch(**moved)


@dataclass(frozen=True)
class Rollout:
    """Prompts, sampled responses and everything measured on them, on the CPU. Row b is one episode.

    Log-probabilities and KL in nats. `response_mask` is True for tokens the policy produced, the end token included.
    """

    prompts: tuple[tuple[int, ...], ...]  # B ragged rows of token ids
    responses: Int[Tensor, "B R"]  # int64, 0 where the mask is False
    response_mask: Bool[Tensor, "B R"]
    finished: Bool[Tensor, "B"]  # the response ended by an end token
    sampler_logprobs: Float[Tensor, "B R"]  # reported by the sampler
    old_logprobs: Float[Tensor, "B R"]  # recomputed by the trainer before the first update
    reference_logprobs: Float[Tensor, "B R"]
    values: Float[Tensor, "B R"]  # the critic's value of the state before each token; 0 without a critic
    scores: Float[Tensor, "B"]  # the reward model's score of each response

    def rows(self, index: list[int]) -> "Rollout":
        """The given episodes, in the given order."""
        take = torch.tensor(index, dtype=torch.int64)
        fields = {name: getattr(self, name)[take] for name in self.__dataclass_fields__ if name != "prompts"}
        return Rollout(prompts=tuple(self.prompts[i] for i in index), **fields)
