"""Bugs of losses, advantages and denominators.

Each test is named after a bug that a published project ships, puts fairlead where that project goes wrong, and cites
the row of the design notes: NUMERICS 5.0 are bugs read or run in ten projects, MISSION 1.5 the complaints of the five
write-ups that fairlead began with. `experiments/put_bugs_in.py` puts each of them in and sees its test turn red.

Rows that do not concern training have none here. NUMERICS 5.0 (9, second half) and (10, but for streaming): a pinned
package that cannot be imported, and a server. MISSION 1.5: 59 and 74 (native builds, versions), 68 (commands of the
documents: tests/docs), 69 and 76 (what is evaluated), 72 (few-shot benchmarks), 75 (streaming of large files, not built
yet), 78 (labelling by people).
"""

import math

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from fairlead.algos.advantages import gae, shape_rewards
from fairlead.algos.kl import kl_k1, kl_k3
from fairlead.algos.masked import whiten
from fairlead.algos.preference_loss import dpo_loss, odds_ratio_loss, robust_dpo_loss, simpo_loss
from fairlead.algos.reward_loss import pairwise_log_exp, pairwise_log_sig
from fairlead.config.stages import DpoConfig
from fairlead.data.examples import preference_examples
from fairlead.data.load import read_preferences
from fairlead.models import roles as roles_module
from fairlead.models.build import add_frozen
from fairlead.models.roles import Roles
from fairlead.models.sources import resolve
from fairlead.train.dpo import pair_losses
from fairlead.train.rows import encoder_of
from model_setting import in_training, packed, rows_of, runtime_of
from oracles import losses
from tiny_stages import rows_of as lines_of
from train.test_grpo import GROUP, recorded
from train.test_grpo import set_up as set_up_grpo
from train.test_ppo_step import Plain


def test_colossalchat_adds_the_sequence_score_to_every_token():
    """NUMERICS 5.0 (1): a score of 2 under mask 1110 became 2, 2, 2, 0, an objective weighted by length."""
    mask = torch.tensor([[True, True, True, False]])
    zeros = torch.zeros(1, 4)
    rewards = shape_rewards(torch.tensor([2.0]), zeros, zeros, mask, kl_coef=0.1)
    assert rewards.tolist() == [[0.0, 0.0, 2.0, 0.0]]
    advantages, _ = gae(rewards, zeros, mask, gamma=1.0, lam=1.0)
    assert advantages.tolist() == [[2.0, 2.0, 2.0, 0.0]], "each token is worth the score, whatever the length"


@pytest.mark.parametrize("gap", [100.0, 1e4])
@pytest.mark.parametrize("right", [True, False])
@pytest.mark.parametrize(
    ("loss", "when_right", "when_wrong"),  # far from 0, where -log sigmoid(x) is 0 or -x
    [
        (pairwise_log_sig, lambda gap: 0.0, lambda gap: gap),
        (pairwise_log_exp, lambda gap: 0.0, lambda gap: gap),
        (
            lambda c, r: dpo_loss(c, r, torch.zeros(1), torch.zeros(1), beta=1.0, label_smoothing=0.1)[0],
            lambda gap: 0.1 * gap, lambda gap: 0.9 * gap,
        ),
        (lambda c, r: robust_dpo_loss(c - r, label_smoothing=0.1), lambda g: -0.1 * g / 0.8, lambda g: 0.9 * g / 0.8),
        (lambda c, r: simpo_loss(c, r, beta=1.0, gamma=0.5), lambda gap: 0.0, lambda gap: gap + 0.5),
    ],
    ids=["log_sig", "log_exp", "dpo", "robust", "simpo"],
)  # fmt: skip
def test_losses_overflow_at_large_gaps(loss, when_right, when_wrong, right, gap):
    """NUMERICS 5.0 (4) and MISSION 1.5 (66): log(1 + exp(x)) is inf at 100, -log(sigmoid(x)) is inf at -110."""
    chosen = torch.tensor([gap if right else -gap], requires_grad=True)
    rejected = torch.zeros(1, requires_grad=True)
    value = loss(chosen, rejected)
    value.sum().backward()
    assert value.isfinite().all()
    assert chosen.grad.isfinite().all()
    assert rejected.grad.isfinite().all()
    assert value.item() == pytest.approx(when_right(gap) if right else when_wrong(gap), rel=1e-6, abs=1e-6)


def test_colossalchat_averages_the_odds_over_the_batch():
    """NUMERICS 5.0 (4): ORPO's odds are of one response each; a longer neighbour changes nothing."""
    config = DpoConfig(loss="odds_ratio", sft_coef=1.0, beta=1.0)
    policy, counts = torch.tensor([-4.0, -9.0, -80.0, -30.0]), torch.tensor([4, 6, 40, 10])
    both, _, _ = pair_losses(policy, torch.zeros(4), counts, config)
    want = [losses.odds_ratio(-4.0 / 4, -9.0 / 6), losses.odds_ratio(-80.0 / 40, -30.0 / 10)]
    assert both.tolist() == pytest.approx(want, rel=1e-5)


def test_colossalchat_casts_the_odds_to_bfloat16():
    """NUMERICS 5.0 (4): near p = 1 the odds need float32; eight bits would round 1 - p to 0."""
    chosen, rejected = torch.tensor([-0.01]).bfloat16(), torch.tensor([-0.02]).bfloat16()
    loss = odds_ratio_loss(chosen, rejected)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(losses.odds_ratio(chosen.item(), rejected.item()), rel=1e-4)


PUBLISHED = torch.tensor([[1.2, 1.3, 1.4], [1.5, 1.6, 1.7], [1.8, 1.9, 2.0]])


def test_torchtune_inverts_shift_mean():
    """NUMERICS 5.0 (6): advantages that should be centred kept their mean of 1.6."""
    everything = torch.ones_like(PUBLISHED, dtype=torch.bool)
    assert whiten(PUBLISHED, everything, shift_mean=True).mean().item() == pytest.approx(0.0, abs=1e-6)
    assert whiten(PUBLISHED, everything, shift_mean=False).mean().item() == pytest.approx(1.6)


def test_trl_whitens_with_the_unbiased_variance():
    """NUMERICS 5.0 (6): the published matrix gives .0508, .4381, .8254; the unbiased variance gives .1394, ..."""
    got = whiten(PUBLISHED, torch.ones_like(PUBLISHED, dtype=torch.bool), shift_mean=False)
    assert got[0].tolist() == pytest.approx([0.0508, 0.4381, 0.8254], abs=5e-5)


def test_deepspeed_chat_averages_the_scores_of_all_tokens(world, tmp_path):
    """NUMERICS 5.0 (7), MISSION 1.5 (64): the loss of a pair is of one score each, read at the end."""
    stage = world.run(
        "reward", tmp_path, "max_steps=1", "optim.lr=1e-30", "batch.rows=100",
        "data.held_out_rows=0", "batch.micro_batch_tokens=100000",
    )  # fmt: skip
    roles = Roles()
    add_frozen(roles, "judge", resolve(str(stage)), "scores", runtime_of())
    judge = Plain(world.model, roles, "judge")
    records = read_preferences([world.preferences]).records
    pairs, _ = preference_examples(records, encoder_of(resolve(str(world.model))).template, 256, end_token=True)
    assert len({len(pair.chosen.input_ids) for pair in pairs}) > 3, "equal lengths would hide it"
    each = [
        losses.negative_log_sigmoid(judge.score(pair.chosen.input_ids) - judge.score(pair.rejected.input_ids))
        for pair in pairs
    ]
    (metrics,) = lines_of(stage / "metrics.jsonl")
    assert metrics["loss"] == pytest.approx(sum(each) / len(each), rel=1e-4)


def test_trl_grpo_moves_groups_without_variance_by_their_kl(world, tmp_path, monkeypatch):
    """NUMERICS 5.0 (9): where all scores of a group are equal, another KL of that group changes no gradient."""
    learner, tasks = set_up_grpo(world, tmp_path, "mini_batch_size=12", "kl.where=loss", "kl.estimator=k3")
    rollout, _ = learner.sample(tasks, 0)
    rollout.scores[:GROUP] = 0.25
    kept = recorded(learner, monkeypatch)
    learner.learn(rollout, 0)
    rollout.reference_logprobs[:GROUP] -= 1.0
    learner.learn(rollout, 0)
    assert any(gradient.any() for gradient in kept[0].values())
    for name, gradient in kept[0].items():
        assert torch.equal(gradient, kept[1][name]), name


def test_trl_grpo_steps_on_a_batch_without_any_variance(world, tmp_path):
    """NUMERICS 5.0 (9): no group teaches, so neither a gradient nor the optimizer's momentum moves a weight."""
    learner, tasks = set_up_grpo(world, tmp_path, "optim.lr=0.01", "kl.where=loss", "kl.estimator=k3")
    rollout, _ = learner.sample(tasks, 0)
    learner.learn(rollout, 0)
    before = {name: tensor.clone() for name, tensor in learner.policy.state().items()}
    rollout.scores.fill_(0.7)
    learner.learn(rollout, 1)
    assert all(torch.equal(before[name], tensor) for name, tensor in learner.policy.state().items())


def test_less_memory_changes_the_loss(world, tmp_path):
    """MISSION 1.5 (61): a step cut because memory is short; a mean of means weighs short micro-batches too much."""
    numbers = [
        lines_of(
            world.run("sft", tmp_path / str(cut), f"batch.num_micro_batches={cut}", "batch.rows=20", "max_steps=1")
            / "metrics.jsonl"
        )[0]
        for cut in (1, 7)
    ]
    for name in ("loss", "grad_norm"):
        assert numbers[0][name] == pytest.approx(numbers[1][name], rel=1e-5)


class _Largest(TorchDispatchMode):
    """The most rows of any matrix as wide as the vocabulary."""

    rows = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for one in torch.utils._pytree.tree_leaves(result):
            if torch.is_tensor(one) and one.ndim == 2 and one.shape[1] == 320:
                self.rows = max(self.rows, one.shape[0])
        return result


def test_a_large_vocabulary_blows_the_memory(tiny, monkeypatch):
    """MISSION 1.5 (79): the logits of all tokens at once; here they exist for a few targets at a time."""
    roles = in_training(tiny("llama"), tuning="lora")
    chunk = roles_module.LOGITS_CHUNK["cpu"]
    batch = packed(rows_of([chunk + 40, chunk + 30]))
    with _Largest() as largest:
        roles(batch, "policy").logprobs.sum().backward()
    assert largest.rows == chunk < len(batch.targets)


def test_kl_turns_negative_without_notice():
    """MISSION 1.5 (77): the sum of log-ratios of one response may be below 0, its k3 estimate may not."""
    logprobs, reference = torch.tensor([-2.0, -1.5]), torch.tensor([-1.0, -1.0])
    assert kl_k1(logprobs, reference).sum() < 0
    assert (kl_k3(logprobs, reference) > 0).all()
    assert kl_k3(logprobs, reference)[0].item() == pytest.approx(math.e - 2)
