"""TRL beside the vectors, as released: nothing of it is copied here.

TRL keeps its formulas inside trainer methods. Each is called on a trainer made without its constructor that holds only
what the method reads; where the method would run a model, a stand-in returns the log-probabilities of the case:

- token_logprobs, entropy: functions of `trl.trainer.utils`
- sft_loss, label_smoothing: `SFTTrainer.compute_loss`, one call per micro-batch with the tokens of the whole step, as
  `Trainer` passes them; the label smoother is the one that transformers hands to it
- reward_log_sig, reward_centred: `RewardTrainer.compute_loss`, one pair a call (it returns a mean)
- dpo, robust_dpo, ipo, hinge and the length-normalised ones: `DPOTrainer._compute_loss`, one pair a call, with
  reference log-probabilities computed beforehand; the first token carries the log-probability of the response
- simpo: `trl.experimental.cpo.CPOTrainer.cpo_loss`; odds_ratio: `trl.experimental.orpo.ORPOTrainer.odds_ratio_loss`,
  whose sign is that of a term to subtract
- kto: `KTOTrainer._compute_loss` and `_compute_kl_logps`, one response a call
- kl_k3 (advantage 0, beta 1), clipped and dual-clipped loss (its `delta`), aggregations (ratio 1, the advantage is
  minus the loss; loss types dapo, grpo, dr_grpo): `GRPOTrainer._compute_loss`
- group_advantages, importance_weights: `GRPOTrainer._generate_and_score_completions`, with responses given
- leave_one_out: `RLOOTrainer._generate_and_score_completions`; kl_k1: the same, read off the advantage of a response of
  one token against one without KL, all scores 0
- overlong_penalty: `trl.rewards.get_soft_overlong_punishment`

Not offered: what PPO needs beyond GRPO (TRL removed its PPO trainer), KL by k2, K-wise ranking, log_exp, the z-loss.
"""

from collections import defaultdict
from importlib.metadata import version
from types import SimpleNamespace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from transformers.trainer_pt_utils import LabelSmoother
from trl import DPOTrainer, GRPOTrainer, KTOTrainer, RewardTrainer, RLOOTrainer, SFTTrainer
from trl.experimental.cpo import CPOTrainer
from trl.experimental.orpo import ORPOTrainer
from trl.rewards import get_soft_overlong_punishment
from trl.trainer.utils import selective_log_softmax, selective_log_softmax_and_entropy

NO_LABEL = -100


class TrlAdapter:
    """What TRL offers, in float32."""

    name = "TRL"
    versions: ClassVar = {package: version(package).partition("+")[0] for package in ("trl", "transformers", "torch")}
    differs: ClassVar = {
        "ipo": "TRL divides each log-ratio by the length of its response, having asked the authors of IPO (comment in "
        "`DPOTrainer._compute_loss`); eq. 17 of the paper sums. See length_normalised_ipo.",
        "conservative_dpo": "`label_smoothing` is documented for robust and EXO alone and has no effect on "
        "`loss_type=sigmoid`.",
    }

    # Likelihood

    def token_logprobs(self, logits, targets, temperature):
        return selective_log_softmax(_logits(logits), torch.tensor(targets), temperature=temperature).tolist()

    def entropy(self, logits, temperature):
        logits = _logits(logits)
        targets = torch.zeros(len(logits), dtype=torch.int64)
        return selective_log_softmax_and_entropy(logits, targets, temperature=temperature)[1].tolist()

    def sft_loss(self, logprobs, trained, micro_batches):
        num_items = torch.tensor(sum(sum(row) for row in trained))
        trainer = _sft_trainer(label_smoother=None)
        total = 0.0
        for rows in micro_batches:
            values = torch.tensor([x for row in rows for x in logprobs[row]])
            mask = torch.tensor([x for row in rows for x in trained[row]])
            said = _said(values.masked_fill(~mask, 0.0)[None], label_mask=mask[None])
            inputs = {"labels": None, "attention_mask": mask[None]}
            total += float(trainer.compute_loss(lambda said=said, **_: said, inputs, num_items_in_batch=num_items))
        return total

    def label_smoothing(self, logits, targets, label_smoothing):
        trainer = _sft_trainer(label_smoother=LabelSmoother(epsilon=label_smoothing))
        losses = []
        for row, target in zip(_logits(logits), targets, strict=True):
            labels = torch.tensor([[NO_LABEL, target]])
            said = _said(torch.zeros(1, 1), label_mask=torch.ones(1, 1, dtype=torch.bool))
            said["logits"] = torch.stack([row, row])[None]
            inputs = {"labels": labels, "attention_mask": torch.ones(1, 2)}
            losses.append(float(trainer.compute_loss(lambda said=said, **_: said, inputs)))
        return losses

    # Reward model

    def reward_log_sig(self, chosen, rejected, margin):
        return [self._reward_loss(*pair, margin, None) for pair in zip(chosen, rejected, strict=True)]

    def reward_centred(self, chosen, rejected, centring_coef):
        return [self._reward_loss(*pair, 0.0, centring_coef) for pair in zip(chosen, rejected, strict=True)]

    def _reward_loss(self, chosen, rejected, margin, coefficient):
        trainer = _bare(RewardTrainer, args=SimpleNamespace(center_rewards_coefficient=coefficient))
        said = SimpleNamespace(logits=torch.tensor([[chosen], [rejected]]))
        inputs = {"margin": torch.tensor([margin]), "attention_mask": torch.ones(2, 1)}
        return float(trainer.compute_loss(lambda **_: said, inputs))

    # Preferences without a reward model

    def dpo(self, **inputs):
        return _dpo_losses("sigmoid", **inputs)

    def robust_dpo(self, **inputs):
        return _dpo_losses("robust", **inputs)

    def hinge(self, **inputs):
        return _dpo_losses("hinge", **inputs)

    def ipo(self, policy_chosen, **inputs):
        """On responses of three tokens: at one token sums and means are the same."""
        lengths = [3] * len(policy_chosen)
        return _dpo_losses("ipo", policy_chosen=policy_chosen, chosen_tokens=lengths, rejected_tokens=lengths, **inputs)

    def length_normalised_dpo(self, **inputs):
        return _dpo_losses("sigmoid_norm", **inputs)

    def length_normalised_ipo(self, **inputs):
        return _dpo_losses("ipo", **inputs)

    def simpo(self, chosen, rejected, beta, gamma):
        trainer = _bare(CPOTrainer, alpha=0.0, beta=beta, loss_type="simpo", simpo_gamma=gamma, label_smoothing=0.0)
        return trainer.cpo_loss(torch.tensor(chosen), torch.tensor(rejected))[0].tolist()

    def odds_ratio(self, chosen, rejected):
        trainer = _bare(ORPOTrainer, beta=1.0)
        return (-trainer.odds_ratio_loss(torch.tensor(chosen), torch.tensor(rejected))[0]).tolist()

    def kto(self, policy, reference, desirable, kl, **options):
        trainer = _bare(
            KTOTrainer, loss_type="kto", calculate_KL=True, precompute_ref_logps=True, aux_loss_enabled=False, **options
        )
        losses = []
        for logprob, before, is_desirable in zip(policy, reference, desirable, strict=True):
            told_by_token = {1: logprob, 2: kl}  # the response itself, and the one that the KL is estimated on
            said = {token: _said(torch.tensor([[told]])) for token, told in told_by_token.items()}
            one, two = (torch.tensor([[0, token]]) for token in told_by_token)
            mask, all_of_it = torch.tensor([[0, 1]]), torch.ones(1, 2)
            inputs = {
                "input_ids": one, "attention_mask": all_of_it, "completion_mask": mask,
                "KL_input_ids": two, "KL_attention_mask": all_of_it, "KL_completion_mask": mask,
                "label": torch.tensor([is_desirable]),
                "ref_logps": torch.tensor([before]), "ref_KL_logps": torch.tensor([0.0]),
            }  # fmt: skip
            model = lambda input_ids, said=said, **_: said[int(input_ids[0, 1])]  # noqa: E731
            losses.append(float(trainer._compute_loss(model, inputs, return_outputs=False)))
        return losses

    # KL, advantages, weights

    def kl_k1(self, logprobs, reference_logprobs):
        return [
            -_rloo_advantages([0.0, 0.0], 2, kl_coef=1.0, logprobs=[p, -1.0], reference_logprobs=[q, -1.0])[0]
            for p, q in zip(logprobs, reference_logprobs, strict=True)
        ]

    def kl_k3(self, logprobs, reference_logprobs):
        return [
            _grpo_loss([[p]], advantages=[[0.0]], reference_logprobs=torch.tensor([[q]]))
            for p, q in zip(logprobs, reference_logprobs, strict=True)
        ]

    def group_advantages(self, scores, group_size):
        return _scored(scores, group_size, scale_rewards="none")["advantages"].tolist()

    def group_advantages_std(self, scores, group_size):
        return _scored(scores, group_size, scale_rewards="group")["advantages"].tolist()

    def leave_one_out(self, scores, group_size):
        return _rloo_advantages(scores, group_size)

    def importance_weights(self, trainer_logprobs, sampler_logprobs, cap):
        scored = _scored(
            [0.0] * len(trainer_logprobs), len(trainer_logprobs), use_vllm=True, vllm_importance_sampling_clip_max=cap,
            logprobs=trainer_logprobs, sampler_logprobs=sampler_logprobs,
        )  # fmt: skip
        return scored["importance_sampling_ratio"][:, 0].tolist()

    def overlong_penalty(self, lengths, max_response_tokens, soft_tokens):
        penalty = get_soft_overlong_punishment(max_response_tokens, soft_tokens)
        return penalty(completion_ids=[[0] * length for length in lengths])

    # Losses of the policy

    def clipped_policy_loss(self, logprobs, old_logprobs, advantages, clip_eps_low, clip_eps_high, dual_clip=None):
        return [
            _grpo_loss(
                [[new]], advantages=[[advantage]], old_logprobs=torch.tensor([[old]]), epsilon_low=clip_eps_low,
                epsilon_high=clip_eps_high, delta=dual_clip,
            )
            for new, old, advantage in zip(logprobs, old_logprobs, advantages, strict=True)
        ]  # fmt: skip

    dual_clip_policy_loss = clipped_policy_loss

    def aggregate_token_mean(self, **inputs):
        return _aggregate("dapo", **inputs)

    def aggregate_response_mean(self, **inputs):
        return _aggregate("grpo", **inputs)

    def aggregate_constant(self, **inputs):
        return _aggregate("dr_grpo", **inputs)


def _bare(trainer: type, **fields: Any) -> Any:
    """A trainer without its constructor: one process, not training, metrics thrown away."""
    made = object.__new__(trainer)
    accelerator = SimpleNamespace(
        device=torch.device("cpu"), num_processes=1, process_index=0, parallelism_config=None, sync_gradients=True,
        gather=lambda x: x, gather_for_metrics=lambda x: x, reduce=lambda x, **_: x, unwrap_model=lambda m: m,
    )  # fmt: skip
    common = {
        "model": _NoModel().eval(), "accelerator": accelerator, "aux_loss_enabled": False,
        "_metrics": {mode: defaultdict(list) for mode in ("train", "eval")}, "_total_train_tokens": 0, "_tp_size": 1,
    }  # fmt: skip
    made.__dict__.update(common | fields)
    return made


class _NoModel(nn.Module):
    is_gradient_checkpointing = False


class _Said(dict):
    """What a model returns: by key for transformers, by attribute for TRL."""

    __getattr__ = dict.__getitem__


def _said(logprobs: Tensor, label_mask: Tensor | None = None) -> _Said:
    zeros = torch.zeros_like(logprobs)
    return _Said(
        log_probs=logprobs, entropy=zeros, mean_logits=zeros, is_top1=zeros.bool(), label_mask=label_mask, aux_loss=None
    )


def _logits(logits: list) -> Tensor:
    return torch.tensor([[float("-inf") if x is None else x for x in row] for row in logits])


def _sft_trainer(*, label_smoother: LabelSmoother | None) -> Any:
    arguments = SimpleNamespace(loss_type="nll", average_tokens_across_devices=False)
    return _bare(SFTTrainer, args=arguments, compute_loss_func=None, label_smoother=label_smoother)


def _dpo_losses(
    loss_type: str, *, policy_chosen, policy_rejected, reference_chosen, reference_rejected, beta,
    label_smoothing=0.0, chosen_tokens=None, rejected_tokens=None,
) -> list[float]:  # fmt: skip
    trainer = _bare(
        DPOTrainer, loss_types=[loss_type], loss_weights=[1.0], beta=beta, label_smoothing=label_smoothing,
        f_divergence_type="reverse_kl", ld_alpha=None, precompute_ref_logps=True, use_weighting=False,
    )  # fmt: skip
    ones = [1] * len(policy_chosen)
    pairs = zip(
        policy_chosen, policy_rejected, reference_chosen, reference_rejected, chosen_tokens or ones,
        rejected_tokens or ones, strict=True,
    )  # fmt: skip
    losses = []
    for chosen, rejected, before_chosen, before_rejected, *lengths in pairs:
        width = max(lengths)
        logprobs = torch.zeros(2, width)
        logprobs[:, 0] = torch.tensor([chosen, rejected])
        mask = torch.tensor([[0] + [1] * length + [0] * (width - length) for length in lengths])
        inputs = {
            "input_ids": torch.zeros_like(mask), "attention_mask": torch.ones_like(mask), "completion_mask": mask,
            "ref_chosen_logps": torch.tensor([before_chosen]), "ref_rejected_logps": torch.tensor([before_rejected]),
        }  # fmt: skip
        said = _said(logprobs)
        losses.append(float(trainer._compute_loss(lambda said=said, **_: said, inputs, return_outputs=False)))
    return losses


def _grpo_loss(
    logprobs: list, *, advantages: list, mask: list | None = None, old_logprobs: Tensor | None = None,
    reference_logprobs: Tensor | None = None, num_items: int = 1, num_micro_batches: int = 1, loss_type: str = "grpo",
    epsilon_low: float = 0.2, epsilon_high: float = 0.2, delta: float | None = None, max_completion_length: int = 1,
) -> float:  # fmt: skip
    """One micro-batch of rows of tokens."""
    arguments = SimpleNamespace(delta=delta, use_bias_correction_kl=False, steps_per_generation=num_micro_batches)
    trainer = _bare(
        GRPOTrainer, args=arguments, beta=0.0 if reference_logprobs is None else 1.0, loss_type=loss_type,
        epsilon_low=epsilon_low, epsilon_high=epsilon_high, importance_sampling_level="token", use_vllm=False,
        top_entropy_quantile=1.0, off_policy_mask_threshold=None, _entropy_bonus_enabled=False,
        max_completion_length=max_completion_length, current_gradient_accumulation_steps=num_micro_batches,
    )  # fmt: skip
    trainer.model.train()  # the losses of micro-batches add up to that of the step in training alone
    new = torch.tensor(logprobs)
    trainer._get_per_token_logps_and_entropies = lambda *_, **__: (new, torch.zeros_like(new), None)
    completion_mask = torch.ones_like(new) if mask is None else torch.tensor(mask)
    inputs = {
        "prompt_ids": torch.zeros(len(new), 1), "prompt_mask": torch.ones(len(new), 1),
        "completion_ids": torch.zeros_like(new), "completion_mask": completion_mask,
        "advantages": torch.tensor(advantages), "num_items_in_batch": torch.tensor(num_items),
        "old_per_token_logps": old_logprobs, "ref_per_token_logps": reference_logprobs,
    }  # fmt: skip
    return float(trainer._compute_loss(None, inputs))


def _aggregate(loss_type: str, losses, micro_batches, max_response_tokens=0) -> float:
    """Rows padded to one width; the ratio is 1, so that a token costs minus its advantage."""
    width = max(map(len, losses))
    padded = [[-x for x in row] + [0.0] * (width - len(row)) for row in losses]
    masks = [[1.0] * len(row) + [0.0] * (width - len(row)) for row in losses]
    return sum(
        _grpo_loss(
            [[0.0] * width for _ in rows], advantages=[padded[row] for row in rows], mask=[masks[row] for row in rows],
            num_items=sum(map(len, losses)), num_micro_batches=len(micro_batches), loss_type=loss_type,
            max_completion_length=max_response_tokens,
        )
        for rows in micro_batches
    )  # fmt: skip


def _scoring(trainer: type, scores: list, group_size: int, **fields: Any) -> Any:
    """A trainer that is about to score responses of one token each, whose scores are known."""
    arguments = SimpleNamespace(
        per_device_eval_batch_size=len(scores), gradient_checkpointing_kwargs=None, steps_per_generation=1,
        gradient_accumulation_steps=1,
    )  # fmt: skip
    made = _bare(
        trainer, args=arguments, _tokenizer=SimpleNamespace(pad_token_id=0), pad_to_multiple_of=None, tools=None,
        environments=None, environment_factories=None, mask_truncated_completions=False, num_iterations=1,
        num_generations_eval=group_size, reward_weights=torch.ones(1), reward_func_names=["score"],
        reward_funcs=[None], ref_model=object(), log_multimodal=False, _pending_extra_logs={}, _pending_metrics={},
        _logs={
            "prompt": [], "completion": [], "advantages": [], "rewards": defaultdict(list), "extra": defaultdict(list),
        }, **fields,
    )  # fmt: skip
    made._calculate_rewards = lambda *_: torch.tensor(scores)[:, None]
    return made


def _scored(
    scores: list, group_size: int, *, scale_rewards: str = "none", use_vllm: bool = False,
    vllm_importance_sampling_clip_max: float | None = None, logprobs: list | None = None,
    sampler_logprobs: list | None = None,
) -> dict[str, Tensor]:  # fmt: skip
    trainer = _scoring(
        GRPOTrainer, scores, group_size, beta=0.0, scale_rewards=scale_rewards, use_vllm=use_vllm,
        multi_objective_aggregation="sum_then_normalize", vllm_importance_sampling_correction=True,
        vllm_importance_sampling_mode="token_truncate", vllm_importance_sampling_clip_min=None,
        vllm_importance_sampling_clip_max=vllm_importance_sampling_clip_max,
    )  # fmt: skip
    count = len(scores)
    sampled = None if sampler_logprobs is None else [[x] for x in sampler_logprobs]
    trainer._generate = lambda _: ([[0]] * count, [[0]] * count, None, [""] * count, sampled, {}, None, None)
    trainer._get_per_token_logps_and_entropies = lambda *_, **__: (torch.tensor(logprobs)[:, None], None, None)
    return trainer._generate_and_score_completions([{"prompt": ""}] * count)


def _rloo_advantages(
    scores: list, group_size: int, *, kl_coef: float = 0.0, logprobs: list | None = None,
    reference_logprobs: list | None = None,
) -> list[float]:  # fmt: skip
    count = len(scores)
    trainer = _scoring(
        RLOOTrainer, scores, group_size, beta=kl_coef, reward_clip_range=None, normalize_advantages=False
    )
    trainer._generate = lambda _: ([[0]] * count, [[0]] * count, [""] * count)
    said = {True: logprobs or [0.0] * count, False: reference_logprobs or [0.0] * count}
    trainer._get_per_token_logps_and_entropies = lambda model, *_, **__: (
        torch.tensor(said[model is trainer.model])[:, None], None, None,
    )  # fmt: skip
    return trainer._generate_and_score_completions([{"prompt": ""}] * count)["advantages"].tolist()
