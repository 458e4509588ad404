"""PPO as a whole on a bandit: one token per response, reward 1 for a third of the tokens.

That the formulas have the known optimum is shown in tests/algos/test_bandit.py; here that the trainer, with its
sampler, roles, critic and optimizer, climbs, and that the KL penalty holds it.
"""

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from fairlead.train import ppo
from tiny_stages import rows_of, write_rows

GOOD = range(0, 320, 3)  # token ids with reward 1
TEMPERATURE = 0.5


@pytest.fixture
def good_tokens(monkeypatch):
    """A toy reward model: 1 when the response's token is a good one. `scored_texts` has put an end token behind it."""

    def score(roles, role, texts, batch, runtime):
        return torch.tensor([float(text.input_ids[-2] in GOOD) for text in texts])

    monkeypatch.setattr(ppo, "score_responses", score)


def next_token_shares(world, row, adapter=None):
    """Probability of every token as the first of the answer, by plain transformers and PEFT."""
    model = AutoModelForCausalLM.from_pretrained(world.model)
    if adapter is not None:
        model = PeftModel.from_pretrained(model, str(adapter))
    tokenizer = AutoTokenizer.from_pretrained(world.model)
    ids = tokenizer.apply_chat_template(row["messages"][:-1], add_generation_prompt=True, return_dict=False)
    with torch.no_grad():
        return torch.softmax(model(torch.tensor([ids])).logits[0, -1].double() / TEMPERATURE, dim=-1)


def trained_shares(world, tmp_path, kl_coef):
    """Share of good tokens before and after, and KL(policy || reference), all exact."""
    row = {"messages": [{"role": role, "content": "a"} for role in ("system", "user", "assistant")]}
    prompt = write_rows(tmp_path / "prompt.jsonl", [row])
    stage = world.run(
        "ppo", tmp_path, f"data.train={prompt}", "sampling.max_new_tokens=1",
        f"sampling.temperature={TEMPERATURE}", "num_iterations=25", "prompts_per_iteration=32", "mini_batch_size=32",
        "num_epochs=2", f"kl.coef={kl_coef}", "optim.lr=0.005", "optim.schedule=linear",
        "batch.micro_batch_tokens=8000", "whiten_advantages=false", "normalise_scores=false",
    )  # fmt: skip
    reference, policy = next_token_shares(world, row), next_token_shares(world, row, stage / "model")
    good = torch.tensor([float(token in GOOD) for token in range(320)]).double()
    scores = [line["score_mean"] for line in rows_of(stage / "metrics.jsonl")]
    return float(reference @ good), float(policy @ good), float(policy @ (policy / reference).log()), scores


def test_the_score_rises(world, tmp_path, good_tokens):
    before, after, kl, scores = trained_shares(world, tmp_path, 0.1)
    assert before < 0.6
    assert after > 0.85
    assert kl > 0.3
    assert sum(scores[-5:]) / 5 == pytest.approx(after, abs=0.12), "160 draws of nearly that policy"


def test_a_heavy_kl_penalty_holds_the_policy(world, tmp_path, good_tokens):
    before, after, kl, _ = trained_shares(world, tmp_path, 20.0)
    assert after == pytest.approx(before, abs=0.15)
    assert kl < 0.1
