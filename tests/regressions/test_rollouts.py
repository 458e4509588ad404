"""Bugs of sampling, scoring and values; see test_numbers.py for what the names and citations mean."""

import pytest
import torch

from fairlead.config.common import SamplingConfig
from fairlead.config.online import GrpoConfig, PpoConfig
from fairlead.data.chat_template import ChatTemplate
from fairlead.data.collate import collate
from fairlead.generate.chat import answer
from fairlead.generate.engine import Engine
from fairlead.models.build import add_frozen
from fairlead.models.roles import Roles
from fairlead.models.sources import resolve
from fairlead.records import Message
from fairlead.rollout.sample import sample_responses, scored_texts
from fairlead.train.episodes import MiniBatch, describe_rollout
from model_setting import frozen, runtime_of
from tiny import tiny_tokenizer
from train.test_ppo_step import Plain, set_up

CLOSE = {"rtol": 1e-4, "atol": 1e-4}  # float32 through two layers


def responses_of(rollout):
    return [row[mask].tolist() for row, mask in zip(rollout.responses, rollout.response_mask, strict=True)]


def test_colossalchat_reads_values_at_the_token_itself(world, tmp_path):
    """NUMERICS 5.0 (2): a value is of the state before its token, where the token's log-probability is read too."""
    learner, tasks, _, _ = set_up(world, tmp_path)
    rollout, _ = learner.sample(tasks, 0)
    prompts = rollout.prompts
    critic = Plain(world.model, learner.roles, "critic")
    for b, response in enumerate(responses_of(rollout)):
        want = torch.stack(critic.values(prompts[b], response)).detach()
        torch.testing.assert_close(rollout.values[b][rollout.response_mask[b]], want, **CLOSE)


def test_colossalchat_slices_old_values_from_another_layout(world, tmp_path):
    """NUMERICS 5.0 (2): prompts of different lengths, and still every old value is that of its own token."""
    learner, tasks, _, _ = set_up(world, tmp_path)
    rollout, _ = learner.sample(tasks, 0)
    prompts = rollout.prompts
    assert len({*map(len, prompts)}) > 1
    assert len({*map(len, responses_of(rollout))}) > 1, "equal lengths would hide it"
    mini = MiniBatch(rollout, rollout.values)
    rows = (4, 0, 5, 1)
    with torch.no_grad():
        values = learner.roles(collate([mini.examples[i] for i in rows]), "critic")
    torch.testing.assert_close(mini.of_targets(rollout.values, rows), values, **CLOSE)


def test_colossalchat_draws_the_same_noise_in_every_rollout(world, tmp_path):
    """NUMERICS 5.0 (3): `torch.manual_seed(41)` inside every rollout; here another iteration draws other responses."""
    learner, tasks, _, _ = set_up(world, tmp_path)
    first, again, second = (responses_of(learner.sample(tasks, iteration)[0]) for iteration in (0, 0, 1))
    assert first == again
    assert sum(a != b for a, b in zip(first, second, strict=True)) >= 5


@pytest.mark.parametrize("fast", [True, False])
def test_colossalchat_scores_a_padding_token_past_the_end(world, tmp_path, fast):
    """NUMERICS 5.0 (3), MISSION 1.5 (57): a score is read at the last real token, packed or padded."""
    learner, tasks, ends, _ = set_up(world, tmp_path)
    prompts = [task.input_ids for task in tasks]
    drawn = sample_responses(learner.engine, prompts, learner.config.sampling, seeds=range(6), runtime=learner.runtime)
    texts = scored_texts(prompts, drawn, score_at="end_token", end_token_ids=ends)
    assert len({len(text.input_ids) for text in texts}) > 1, "equal lengths would hide it"
    roles = Roles()
    add_frozen(roles, "judge", resolve(str(world.reward)), "scores", runtime_of(fast=fast))
    with torch.no_grad():
        scores = roles(collate(texts), "judge")
    judge = Plain(world.model, roles, "judge")
    torch.testing.assert_close(scores, torch.tensor([judge.score(text.input_ids) for text in texts]), **CLOSE)
    assert scores.std() > 0.01, "not all rewards are identical"


def test_deepspeed_chat_rolls_out_greedily(world, tmp_path):
    """NUMERICS 5.0 (7): without exploration six answers to one prompt are one answer; and a setting of 0 is refused."""
    learner, tasks, _, _ = set_up(world, tmp_path)
    drawn = responses_of(learner.sample([tasks[0]] * 6, 0)[0])
    assert len({tuple(response) for response in drawn}) >= 4
    for config in (PpoConfig, GrpoConfig):
        with pytest.raises(ValueError, match="temperature above 0"):
            config.model_validate({"sampling": {"temperature": 0.0}})


def test_deepspeed_chat_repeats_tokens_after_a_step(world, tmp_path):
    """NUMERICS 5.0 (7): the sampler runs on the weights and positions of the trainer, before and after a step."""
    learner, tasks, _, _ = set_up(world, tmp_path, "optim.lr=0.05")
    rollout, _ = learner.sample(tasks, 0)
    before = rollout.old_logprobs.clone()
    assert describe_rollout(rollout)["sampler_gap"] < 1e-4
    learner.learn(rollout, 0)
    after, _ = learner.sample(tasks, 0)
    assert describe_rollout(after)["sampler_gap"] < 1e-4
    assert before.shape != after.old_logprobs.shape or not torch.allclose(before, after.old_logprobs, atol=1e-3)


@pytest.mark.parametrize(
    "options", [{"top_p": 0.9}, {"top_k": 20}, {"min_p": 0.1}, {"repetition_penalty": 1.2}, {"stop": ["x"]}]
)
def test_trl_measures_ratios_of_a_distribution_it_did_not_sample_from(options):
    """NUMERICS 5.0 (9), MISSION 1.5 (77): filters bias every ratio and turn the KL negative, so they are refused."""
    for config in (PpoConfig, GrpoConfig):
        with pytest.raises(ValueError, match="may only set max_new_tokens and a temperature"):
            config.model_validate({"sampling": options})


def test_the_kl_is_measured_at_another_temperature_than_sampled(world, tmp_path):
    """MISSION 1.5 (77): at temperature 0.7 policy, reference and sampler all speak of the tempered distribution."""
    learner, tasks, _, _ = set_up(world, tmp_path)
    assert learner.config.sampling.temperature == 0.7
    rollout, _ = learner.sample(tasks, 0)
    prompts = rollout.prompts
    oracle = Plain(world.model, learner.roles, "reference")
    for b, response in enumerate(responses_of(rollout)):
        want = torch.stack(oracle.logprobs(prompts[b], response, 0.7)[0]).detach()
        torch.testing.assert_close(rollout.reference_logprobs[b][rollout.response_mask[b]], want, **CLOSE)
    gap = (rollout.sampler_logprobs - rollout.old_logprobs)[rollout.response_mask].abs().max()
    assert gap < 1e-4


def test_colossalchat_streams_without_the_repetition_penalty(tiny, capsys):
    """NUMERICS 5.0 (10), MISSION 1.5 (70): what streams in a chat is what the penalty allows."""
    template = ChatTemplate(tiny_tokenizer())
    engine = Engine(frozen(tiny("llama")), "policy", template.end_token_ids, runtime_of(), decode=template.decode)
    dialogue = (Message("user", "hello"),)
    texts = {}
    for penalty in (1.0, 1.5):
        sampling = SamplingConfig(temperature=0.0, max_new_tokens=24, repetition_penalty=penalty)
        answer(engine, template, dialogue, sampling, seed=0)
        (silent,) = engine.generate([template.encode_prompt(dialogue)], sampling, seeds=[0])
        texts[penalty] = capsys.readouterr().out.rstrip("\n")
        assert texts[penalty] == template.decode(silent.tokens).rstrip("\n")
    assert texts[1.0] != texts[1.5]
