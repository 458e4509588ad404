"""A role in memory, written and read back, says the same to the last bit; adapters are the same bytes every time."""

from collections.abc import Callable
from pathlib import Path

import orjson
import pytest
import torch
from torch import Tensor

from fairlead.config.common import LoraConfig, ModelConfig
from fairlead.models.build import add_frozen, add_trainable, ready
from fairlead.models.roles import Roles
from fairlead.models.save import role_tensors, write_role
from fairlead.models.sources import BaseWeights, Source
from model_setting import packed, rows_of, runtime_of

BATCH = packed(rows_of([9, 4, 12]))


def trained(source: Source, output: str, tuning: str) -> Roles:
    roles, runtime, model = Roles(), runtime_of(), ModelConfig(tuning=tuning, lora=LoraConfig(rank=4))
    add_trainable(roles, "judge", source, output, model, runtime, dropout=0.0)
    ready(roles, model, runtime)
    torch.manual_seed(5)
    with torch.no_grad():
        for parameter in roles.trainable("judge").values():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return roles


def said(roles: Roles) -> Tensor:
    with torch.no_grad():
        out = roles(BATCH, "judge")
    return out if isinstance(out, Tensor) else out.logprobs


@pytest.mark.parametrize("tuning", ["lora", "full"])
@pytest.mark.parametrize("output", ["logprobs", "scores", "values"])
@pytest.mark.parametrize("family", ["llama", "llama-untied", "opt", "gpt2"])
def test_written_and_read_back(
    tiny: Callable[[str], Path], tmp_path: Path, family: str, output: str, tuning: str
) -> None:
    base = BaseWeights("sha", tiny(family), "0" * 64)
    roles = trained(Source("tiny", base), output, tuning)
    for copy in ("one", "two"):
        write_role(tmp_path / copy, roles, "judge", role_tensors(roles, "judge"), base, pad_token_id=0)
    for file in (tmp_path / "one").iterdir():
        assert file.read_bytes() == (tmp_path / "two" / file.name).read_bytes(), file.name
    found = Roles()
    if tuning == "lora":
        folder, head = tmp_path / "one", tmp_path / "one" / "adapter_model.safetensors"
        facts = orjson.loads((folder / "adapter_config.json").read_bytes())
        assert facts["base_model_name_or_path"] == f"sha256:{'0' * 64}"
        source = Source("again", base, adapter=folder, head=head)
    else:
        source = Source(
            "again", BaseWeights("again", tmp_path / "one", "1" * 64), head=tmp_path / "one" / "model.safetensors"
        )
    add_frozen(found, "judge", source, output, runtime_of())
    assert torch.equal(said(found), said(roles))
