"""Roles on one base against models loaded one by one with plain PEFT, with and without activation checkpointing."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from peft import LoraConfig as PeftLoraConfig
from peft import PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForCausalLM

from fairlead.algos.reward_loss import head_init_std
from fairlead.artifacts.hashing import sha256_folder
from fairlead.config.common import ModelConfig, OptimConfig
from fairlead.models.build import add_frozen, add_trainable, ready
from fairlead.models.roles import Role, Roles
from fairlead.models.sources import BaseWeights, Source
from fairlead.train.optimizer import Optimizer
from model_setting import TOLERANCE, packed, rows_of, runtime_of

Tiny = Callable[[str], Path]
FAMILIES = ("llama", "gpt2", "bloom", "opt")
OUTPUTS = {"reference": "logprobs", "reward": "scores", "policy": "logprobs", "critic": "values"}
ROWS = rows_of([5, 17, 1, 9])
TRAINED = [tuple(i >= len(row) // 2 for i in range(len(row))) for row in ROWS]
BATCH = packed(ROWS, TRAINED)
torch.manual_seed(1)
WEIGHTS = torch.randn(len(BATCH.targets))
AIMS = torch.randn(len(BATCH.targets))


@dataclass
class Oracle:
    """One role as a PEFT model of its own, called row by row."""

    model: PeftModel
    head: Tensor | None

    def hidden(self, row: tuple[int, ...]) -> Tensor:
        """What the language-model head reads."""
        seen: list[Tensor] = []
        hook = self.model.get_output_embeddings().register_forward_pre_hook(lambda _, args: seen.append(args[0]))
        self.model(torch.tensor([row]))
        hook.remove()
        return seen[0][0]

    def logprobs(self) -> Tensor:
        found = []
        for row, trained in zip(ROWS, TRAINED, strict=True):
            distribution = torch.log_softmax(self.model(torch.tensor([row])).logits[0], -1)
            found += [distribution[i - 1, row[i]] for i in range(1, len(row)) if trained[i]]
        return torch.stack(found)

    def values(self) -> Tensor:
        found = []
        for row, trained in zip(ROWS, TRAINED, strict=True):
            values = self.hidden(row) @ self.head[0]
            found += [values[i - 1] for i in range(1, len(row)) if trained[i]]
        return torch.stack(found)

    def scores(self) -> Tensor:
        return torch.stack([self.hidden(row)[-1] @ self.head[0] for row in ROWS])


def make_adapter(base: Path, folder: Path, seed: int) -> Path:
    """A PEFT folder with random factors and a score head, written by PEFT itself."""
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    names = sorted(
        {
            n.rsplit(".", 1)[-1]
            for n, m in model.named_modules()
            if n.endswith(("proj", "c_attn", "fc1", "query_key_value"))
        }
    )
    adapted = get_peft_model(model, PeftLoraConfig(r=3, lora_alpha=7.0, target_modules=names, task_type="CAUSAL_LM"))
    for name, parameter in adapted.named_parameters():
        if "lora_" in name:
            parameter.data.normal_(0.0, 0.3)
    adapted.save_pretrained(folder)
    save_file(
        {"score.weight": torch.randn(1, model.get_output_embeddings().weight.shape[1])}, folder / "head.safetensors"
    )
    return folder


def source_of(base: Path, adapter: Path) -> Source:
    weights = BaseWeights(str(base), base, sha256_folder(base))
    return Source(str(adapter), weights, adapter=adapter, head=adapter / "head.safetensors")


@pytest.fixture(scope="module")
def adapters(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], dict[str, Path]]:
    made: dict[str, dict[str, Path]] = {}

    def adapters_of(family: str) -> dict[str, Path]:
        if family not in made:
            folder = tmp_path_factory.mktemp(family)
            made[family] = {r: make_adapter(tiny(family), folder / r, seed) for seed, r in enumerate(OUTPUTS)}
        return made[family]

    return adapters_of


def siblings(base: Path, adapters: dict[str, Path], *, checkpointing: bool = False) -> Roles:
    roles, runtime = Roles(), runtime_of()
    model = ModelConfig(activation_checkpointing=checkpointing)
    for role in ("reference", "reward"):
        add_frozen(roles, role, source_of(base, adapters[role]), OUTPUTS[role], runtime)
    for role in ("policy", "critic"):
        add_trainable(roles, role, source_of(base, adapters[role]), OUTPUTS[role], model, runtime, dropout=0.0)
    assert len(roles.backbones) == 1
    return ready(roles, model, runtime)


def apart(base: Path, adapter: Path) -> Oracle:
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32, attn_implementation="eager")
    peft = PeftModel.from_pretrained(model, str(adapter), is_trainable=True)
    return Oracle(peft.eval(), load_file(adapter / "head.safetensors")["score.weight"].requires_grad_())


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_each_role_says_what_its_own_model_says(tiny: Tiny, adapters: Callable, family: str) -> None:
    roles = siblings(tiny(family), adapters(family))
    found = {}
    for role in ("policy", "reward", "critic", "reference", "policy"):
        out = roles(BATCH, role)
        found[role] = out if isinstance(out, Tensor) else out.logprobs
        expected = getattr(apart(tiny(family), adapters(family)[role]), OUTPUTS[role])()
        torch.testing.assert_close(found[role], expected, **TOLERANCE)
    assert (found["policy"] - found["reference"]).abs().max() > 0.1


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
def test_gradients_of_policy_and_critic_are_those_of_separate_models(
    tiny: Tiny, adapters: Callable, family: str, checkpointing: bool
) -> None:
    """Two micro-batches each, as PPO runs them, with forwards of the frozen roles between a backward and the next."""
    base, folders = tiny(family), adapters(family)
    roles = siblings(base, folders, checkpointing=checkpointing)
    for _ in range(2):
        (roles(BATCH, "policy").logprobs * WEIGHTS).sum().backward()
        with torch.no_grad():
            roles(BATCH, "reference")
            roles(BATCH, "reward")
        (roles(BATCH, "critic") - AIMS).square().sum().backward()
    policy, critic = apart(base, folders["policy"]), apart(base, folders["critic"])
    for _ in range(2):
        (policy.logprobs() * WEIGHTS).sum().backward()
        (critic.values() - AIMS).square().sum().backward()
    assert_same_gradients(roles, "policy", policy)
    assert_same_gradients(roles, "critic", critic)
    trainable = {id(p) for role in ("policy", "critic") for p in roles.trainable(role).values()}
    assert all(p.grad is None for p in roles.parameters() if id(p) not in trainable)


def assert_same_gradients(roles: Roles, role: str, oracle: Oracle) -> None:
    found = {name.replace(f".{role}.weight", ".default.weight"): p.grad for name, p in roles.trainable(role).items()}
    expected = {name: p.grad for name, p in oracle.model.named_parameters() if "lora_" in name}
    prefix = next(name for name in found if "lora_" in name).split("base_model.")[0]
    for name, gradient in expected.items():
        assert gradient.abs().max() > 0
        scale = float(gradient.abs().max())
        torch.testing.assert_close(found.pop(prefix + name), gradient, rtol=1e-4, atol=1e-5 * scale + 1e-6)
    if role == "critic":
        torch.testing.assert_close(found.pop("heads.default.weight"), oracle.head.grad, rtol=1e-4, atol=1e-3)
    assert not found


def test_training_leaves_everything_else_as_it_was(tiny: Tiny, adapters: Callable) -> None:
    roles = siblings(tiny("llama"), adapters("llama"))
    before = {name: p.detach().clone() for name, p in roles.named_parameters()}
    with torch.no_grad():
        reference = roles(BATCH, "reference").logprobs
    optimizers = {
        role: Optimizer(roles.trainable(role), OptimConfig(lr=0.1, weight_decay=0.1), runtime_of(), num_steps=3)
        for role in ("policy", "critic")
    }
    for step in range(3):
        (roles(BATCH, "policy").logprobs * WEIGHTS).sum().backward()
        optimizers["policy"].step(step)
        (roles(BATCH, "critic") - AIMS).square().sum().backward()
        optimizers["critic"].step(step)
    with torch.no_grad():
        assert torch.equal(roles(BATCH, "reference").logprobs, reference)
    for name, parameter in roles.named_parameters():
        ours = ".policy." in name or ".critic." in name
        assert torch.equal(parameter, before[name]) != ours, name


def test_a_second_role_before_the_backward_is_refused(tiny: Tiny, adapters: Callable) -> None:
    roles = siblings(tiny("llama"), adapters("llama"), checkpointing=True)
    logprobs = roles(BATCH, "policy").logprobs
    with pytest.raises(AssertionError, match="backward of policy comes first"):
        roles(BATCH, "critic")
    with torch.no_grad(), pytest.raises(AssertionError, match="backward of policy comes first"):
        roles(BATCH, "reference")
    logprobs.sum().backward()
    roles(BATCH, "critic")


def test_a_new_head_is_drawn_with_the_published_spread(tiny: Tiny) -> None:
    roles = Roles()
    base = BaseWeights("tiny", tiny("llama"), "0" * 64)
    add_frozen(roles, "policy", Source("tiny", base), "logprobs", runtime_of())
    (backbone,) = roles.backbones
    for i in range(100):
        roles.add_role(f"critic{i}", Role(backbone, None, trainable=True, output="values"))
    drawn = torch.cat([head.weight.flatten() for head in roles.heads.values()])
    assert len(drawn) == 3200
    drawn = drawn.detach()
    assert float(drawn.std()) == pytest.approx(head_init_std(32), rel=0.05)
    assert abs(float(drawn.mean())) < 0.01
    assert drawn.dtype == torch.float32


def test_full_fine_tuning_keeps_the_roles_in_models_of_their_own(tiny: Tiny) -> None:
    roles, runtime = Roles(), runtime_of()
    model = ModelConfig(tuning="full")
    source = Source("tiny", BaseWeights("tiny", tiny("llama-untied"), "0" * 64))
    add_frozen(roles, "reference", source, "logprobs", runtime)
    add_trainable(roles, "policy", source, "logprobs", model, runtime, dropout=0.0)
    add_trainable(roles, "critic", source, "values", model, runtime, dropout=0.0)
    ready(roles, model, runtime)
    (roles(BATCH, "policy").logprobs * WEIGHTS).sum().backward()
    (roles(BATCH, "critic") - AIMS).square().sum().backward()
    names = {role: set(roles.trainable(role)) for role in ("policy", "critic")}
    assert not names["policy"] & names["critic"]
    assert "heads.critic.weight" in names["critic"]
    assert not any("lm_head" in name for name in names["critic"]), "nothing reads a scorer's language-model head"
    for role in ("policy", "critic"):
        assert all(p.grad is not None and p.grad.abs().max() > 0 for p in roles.trainable(role).values())
    assert all(p.grad is None for p in roles.causal_lm("reference").parameters())
