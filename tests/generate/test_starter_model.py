"""Greedy decoding of the starter model on real prompts, beside transformers' own `generate`."""

import pytest
import torch
from transformers import AutoModelForCausalLM

from fairlead.config.common import ModelConfig, RuntimeConfig, SamplingConfig
from fairlead.data.chat_template import ChatTemplate
from fairlead.data.load import read_prompts
from fairlead.data.starter import resolve_paths
from fairlead.generate.engine import Engine
from fairlead.models.build import add_frozen
from fairlead.models.loading import tokenizer_in
from fairlead.models.roles import Roles
from fairlead.models.sources import resolve
from fairlead.runtime.environment import cache_folder
from fairlead.runtime.start import start

NUM_PROMPTS = 104  # half English, half Chinese
NEW_TOKENS = 16


@pytest.mark.slow
@pytest.mark.real
def test_greedy_tokens_are_those_of_transformers_on_104_real_prompts() -> None:
    """In float32, transformers one prompt at a time: no padding, no neighbours."""
    runtime, source = start(RuntimeConfig(device="cpu", dtype="float32")), resolve(ModelConfig().name)
    template, roles = ChatTemplate(tokenizer_in(source.base.folder)), Roles()
    add_frozen(roles, "policy", source, "logprobs", runtime)
    prompts = [
        tuple(template.encode_prompt(prompt.messages))
        for path in resolve_paths(["alpaca_en_demo", "alpaca_zh_demo"], cache_folder())
        for prompt in read_prompts([path]).records[: NUM_PROMPTS // 2]
    ]
    assert len(prompts) == NUM_PROMPTS
    engine = Engine(roles, "policy", template.end_token_ids, runtime, rows_at_once=24)  # so that prompts wait and enter
    sampling = SamplingConfig(temperature=0.0, max_new_tokens=NEW_TOKENS)
    responses = engine.generate(prompts, sampling, seeds=range(len(prompts)))
    model = AutoModelForCausalLM.from_pretrained(source.base.folder, dtype=torch.float32).eval()
    for prompt, response in zip(prompts, responses, strict=True):
        ids = torch.tensor([prompt])
        out = model.generate(
            ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=NEW_TOKENS,
            eos_token_id=list(template.end_token_ids), pad_token_id=template.end_token_ids[0],
        )  # fmt: skip
        assert response.tokens == tuple(out[0, len(prompt) :].tolist())
