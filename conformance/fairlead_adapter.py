"""fairlead beside the vectors: `algos/`, and the few lines of a trainer where a formula is put together there."""

import math
from typing import ClassVar

import torch
from torch import Tensor

import fairlead
from fairlead.algos import advantages as adv
from fairlead.algos import kl, logprobs, masked, policy_loss, preference_loss, reward_loss
from fairlead.algos.aggregate import Aggregation, token_weights
from fairlead.algos.sft_loss import sft_loss, smoothed_sft_loss
from fairlead.algos.value_loss import clipped_value_loss
from fairlead.config.stages import DpoConfig
from fairlead.data.examples import preference_examples
from fairlead.records import Message, Preference
from fairlead.train.dpo import pair_losses


class FairleadAdapter:
    """Every quantity, computed in `dtype`: float32, as the trainers do, or float64."""

    name = "fairlead"
    versions: ClassVar = {"fairlead": fairlead.__version__, "torch": torch.__version__.partition("+")[0]}
    differs: ClassVar[dict[str, str]] = {}

    def __init__(self, dtype: torch.dtype = torch.float32) -> None:
        self.dtype = dtype

    def _tensor(self, values: list) -> Tensor:
        return torch.tensor(values, dtype=self.dtype)

    def _logits(self, logits: list) -> Tensor:
        return self._tensor([[-math.inf if x is None else x for x in row] for row in logits])

    # Likelihood

    def token_logprobs(self, logits, targets, temperature):
        return logprobs.token_logprobs(self._logits(logits), torch.tensor(targets), temperature=temperature).tolist()

    def entropy(self, logits, temperature):
        return logprobs.entropy(self._logits(logits), temperature=temperature).tolist()

    def sft_loss(self, logprobs, trained, micro_batches):
        """The sum that `train/sft.py` takes over a micro-batch, divided by the trained tokens of the step."""
        count = sum(sum(row) for row in trained)
        total = 0.0
        for rows in micro_batches:
            values = self._tensor([x for row in rows for x in logprobs[row]])
            mask = torch.tensor([x for row in rows for x in trained[row]])
            total += float(masked.masked_sum(sft_loss(values), mask) / count)
        return total

    def label_smoothing(self, logits, targets, label_smoothing):
        return self._smoothed(logits, targets, label_smoothing=label_smoothing, z_coef=0.0)

    def z_loss(self, logits, targets, z_coef):
        return self._smoothed(logits, targets, label_smoothing=0.0, z_coef=z_coef)

    def _smoothed(self, logits, targets, **coefficients):
        """By way of the head that trainers use: the hidden states are the logits, the head is the identity."""
        hidden = self._tensor(logits)
        head = torch.eye(hidden.shape[1], dtype=self.dtype)
        said = logprobs.linear_vocabulary(hidden, head, None, torch.tensor(targets), temperature=1.0, chunk=2)
        return smoothed_sft_loss(*said, **coefficients).tolist()

    # Reward model

    def reward_log_sig(self, chosen, rejected, margin):
        return reward_loss.pairwise_log_sig(self._tensor(chosen), self._tensor(rejected), margin).tolist()

    def reward_log_exp(self, chosen, rejected, margin):
        return reward_loss.pairwise_log_exp(self._tensor(chosen), self._tensor(rejected), margin).tolist()

    def reward_centred(self, chosen, rejected, centring_coef):
        pair = self._tensor(chosen), self._tensor(rejected)
        return (reward_loss.pairwise_log_sig(*pair) + centring_coef * reward_loss.centring_loss(*pair)).tolist()

    def k_wise(self, scores):
        """The pairs of ranked rows and their weights as the data room makes them; token 0 is the prompt."""
        records = [
            Preference((Message("user", str(row)),), tuple(map(str, range(len(ranked)))))
            for row, ranked in enumerate(scores)
        ]
        pairs, rejections = preference_examples(records, _RankAsToken(), 8, end_token=False)  # type: ignore[arg-type]
        assert not rejections
        chosen, rejected = (
            self._tensor([scores[example.input_ids[0]][example.input_ids[1]] for example in side])
            for side in ([pair.chosen for pair in pairs], [pair.rejected for pair in pairs])
        )
        weights = self._tensor([pair.weight for pair in pairs])
        return float((reward_loss.pairwise_log_sig(chosen, rejected) * weights).sum() / weights.sum())

    def score_head_std(self, width):
        return reward_loss.head_init_std(width)

    # Preferences without a reward model

    def dpo(self, **inputs):
        return self._pair_losses("sigmoid", **inputs)

    def conservative_dpo(self, **inputs):
        return self._pair_losses("sigmoid", **inputs)

    def robust_dpo(self, **inputs):
        return self._pair_losses("robust", **inputs)

    def length_normalised_dpo(self, **inputs):
        return self._pair_losses("sigmoid", length_normalised=True, **inputs)

    def ipo(self, **inputs):
        return self._pair_losses("ipo", **inputs)

    def length_normalised_ipo(self, **inputs):
        return self._pair_losses("ipo", length_normalised=True, **inputs)

    def hinge(self, **inputs):
        return self._pair_losses("hinge", **inputs)

    def _pair_losses(
        self, loss, *, policy_chosen, policy_rejected, reference_chosen, reference_rejected, chosen_tokens=None,
        rejected_tokens=None, **options,
    ):  # fmt: skip
        ones = [1] * len(policy_chosen)
        policy, reference = (
            self._tensor(side).T.flatten()
            for side in ([policy_chosen, policy_rejected], [reference_chosen, reference_rejected])
        )
        lengths = torch.tensor([chosen_tokens or ones, rejected_tokens or ones]).T.flatten()
        return pair_losses(policy, reference, lengths, DpoConfig(loss=loss, **options))[0].tolist()

    def simpo(self, chosen, rejected, beta, gamma):
        return preference_loss.simpo_loss(
            self._tensor(chosen), self._tensor(rejected), beta=beta, gamma=gamma
        ).tolist()  # fmt: skip

    def odds_ratio(self, chosen, rejected):
        return preference_loss.odds_ratio_loss(self._tensor(chosen), self._tensor(rejected)).tolist()

    def kto(self, policy, reference, desirable, kl, **options):
        losses, _ = preference_loss.kto_loss(
            self._tensor(policy), self._tensor(reference), torch.tensor(desirable), self._tensor(kl), **options
        )
        return losses.tolist()

    # KL

    def kl_k1(self, logprobs, reference_logprobs):
        return kl.kl_k1(self._tensor(logprobs), self._tensor(reference_logprobs)).tolist()

    def kl_k2(self, logprobs, reference_logprobs):
        return kl.kl_k2(self._tensor(logprobs), self._tensor(reference_logprobs)).tolist()

    def kl_k3(self, logprobs, reference_logprobs):
        return kl.kl_k3(self._tensor(logprobs), self._tensor(reference_logprobs)).tolist()

    def adaptive_kl(self, kl_coef, measured_kl, num_episodes, target, horizon):
        coefs = [kl_coef]
        for measured in measured_kl:
            coefs.append(kl.next_kl_coef(coefs[-1], measured, num_episodes, target=target, horizon=horizon))
        return coefs[1:]

    # Rewards and advantages

    def shaped_rewards(self, scores, logprobs, reference_logprobs, lengths, kl_coef):
        mask = _prefix(lengths, len(logprobs[0]))
        rows = self._tensor(scores), self._tensor(logprobs), self._tensor(reference_logprobs)
        return adv.shape_rewards(*rows, mask, kl_coef=kl_coef).tolist()

    def gae(self, rewards, values, lengths, gamma, lam):
        mask = _prefix(lengths, len(rewards[0]))
        advantages, returns = adv.gae(self._tensor(rewards), self._tensor(values), mask, gamma=gamma, lam=lam)
        return {"advantages": advantages.tolist(), "returns": returns.tolist()}

    def whiten(self, values, mask, shift_mean):
        return masked.whiten(self._tensor(values), torch.tensor(mask), shift_mean=shift_mean).tolist()

    def group_advantages(self, scores, group_size):
        return adv.group_advantages(self._tensor(scores), _group(scores, group_size), divide_by_std=False).tolist()

    def group_advantages_std(self, scores, group_size):
        return adv.group_advantages(self._tensor(scores), _group(scores, group_size), divide_by_std=True).tolist()

    def leave_one_out(self, scores, group_size):
        return adv.leave_one_out_advantages(self._tensor(scores), _group(scores, group_size)).tolist()

    def overlong_penalty(self, lengths, max_response_tokens, soft_tokens):
        return adv.overlong_penalty(
            torch.tensor(lengths), max_response_tokens=max_response_tokens, soft_tokens=soft_tokens
        ).tolist()

    # Losses of the policy and the critic

    def clipped_policy_loss(self, logprobs, old_logprobs, advantages, **options):
        tokens = (self._tensor(values) for values in (logprobs, old_logprobs, advantages))
        return policy_loss.clipped_policy_loss(*tokens, **options).tolist()

    dual_clip_policy_loss = clipped_policy_loss

    def clipped_value_loss(self, values, old_values, returns, value_clip):
        tokens = (self._tensor(numbers) for numbers in (values, old_values, returns))
        return clipped_value_loss(*tokens, value_clip=value_clip).tolist()

    def aggregate_token_mean(self, **inputs):
        return self._aggregate("token_mean", **inputs)

    def aggregate_response_mean(self, **inputs):
        return self._aggregate("response_mean", **inputs)

    def aggregate_constant(self, **inputs):
        return self._aggregate("constant", **inputs)

    def _aggregate(self, how: Aggregation, losses, micro_batches, max_response_tokens=0):
        lengths = torch.tensor([len(row) for row in losses])
        weights = token_weights(lengths, how, max_response_tokens=max_response_tokens).to(self.dtype)
        return sum(float((self._tensor(losses[row]) * weights[row]).sum()) for rows in micro_batches for row in rows)

    def importance_weights(self, trainer_logprobs, sampler_logprobs, cap):
        both = self._tensor(trainer_logprobs), self._tensor(sampler_logprobs)
        return policy_loss.importance_weights(*both, cap=cap).tolist()


class _RankAsToken:
    """Instead of a chat template: the prompt is one token, its row; a response is one token, its rank."""

    def encode_response(self, prompt, response, **_):
        return (int(prompt[0].content),), (int(response),)


def _prefix(lengths: list[int], width: int) -> Tensor:
    return torch.arange(width) < torch.tensor(lengths)[:, None]


def _group(scores: list, group_size: int) -> Tensor:
    return torch.arange(len(scores)) // group_size
