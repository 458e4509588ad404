"""Policy, reference, reward model and critic behind one door.

Under LoRA they are sibling adapters on one frozen base; under full fine-tuning each has weights of its own.
`Roles.forward(batch, role)` is the only way into the model. A role is active from its forward to the end of its
backward: a checkpointed layer recomputes with the adapter that is active then, and a loss summed over two adapters
would give silently wrong gradients. So: one backward per role, and a forward of another role before it is an error.
"""

from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import PreTrainedModel

from fairlead.algos.logprobs import linear_logprobs, linear_vocabulary
from fairlead.algos.reward_loss import head_init_std
from fairlead.batches import PackedBatch
from fairlead.models import adapters
from fairlead.models.forward import hidden_states, next_hidden_states, noisy_embeddings
from fairlead.models.kv_cache import AnyCache
from fairlead.models.loading import Loaded, decoder_of, input_embedding, output_embedding

LOGITS_CHUNK = {"cpu": 64, "cuda": 1024}  # targets whose logits exist at once; on a CPU they should fit its cache


class TokenLogprobs(NamedTuple):
    """What a policy says of the target tokens."""

    logprobs: Float[Tensor, "M"]  # nats, carries gradient
    entropy: Float[Tensor, "M"] | None  # nats, of the whole distribution, no gradient; None unless asked for


class VocabularyLogprobs(NamedTuple):
    """What a policy says of the target tokens and of the whole vocabulary there; all carry gradient, in nats."""

    logprobs: Float[Tensor, "M"]
    mean_logprobs: Float[Tensor, "M"]  # over the vocabulary
    log_normalisers: Float[Tensor, "M"]  # of the softmax


@dataclass(frozen=True)
class Role:
    """Which weights a role uses."""

    backbone: str
    adapter: str | None  # None: the bare backbone
    trainable: bool
    output: str  # "logprobs", "values" (one per target) or "scores" (one per sequence)


class Roles(nn.Module):
    """All models of a stage. Build it with `add_backbone` and `add_role`, then call it."""

    def __init__(self) -> None:
        super().__init__()
        self.backbones = nn.ModuleDict()
        self.heads = nn.ModuleDict()
        self.roles: dict[str, Role] = {}
        self.packed: dict[str, bool] = {}
        self.notes: list[str] = []  # what the user should know of how the models run
        self.dtype = torch.float32  # of compute; see build.py's `ready`
        self.tokenizer: Path | None = None  # folder of the tokenizer that all roles share
        self._awaiting_backward: str | None = None
        self.noise: dict[str, float] = {}  # NEFTune's alpha of a role, in training only
        self._layers: dict[str, list[adapters.BaseTunerLayer]] = {}  # of each backbone, with the adapter in use
        self._active: dict[str, str | None] = {}

    def add_backbone(self, name: str, loaded: Loaded) -> None:
        """A causal language model that roles can stand on."""
        self.backbones[name] = loaded.model
        self.packed[name] = loaded.packed
        if loaded.note:
            self.note(loaded.note)

    def note(self, text: str) -> None:
        """Something the user should know, told once."""
        if text not in self.notes:
            self.notes.append(text)

    def add_role(self, name: str, role: Role, *, head: Float[Tensor, "1 D"] | None = None) -> None:
        """Declare a role; scorers need a head: given, or drawn from N(0, 1/sqrt(d+1)) (N+ details, 2024)."""
        self.roles[name] = role
        self._active.clear()  # new adapters have new layers
        if role.output != "logprobs":
            model = self.plain(role.backbone)
            width = output_embedding(model).in_features
            layer = nn.Linear(width, 1, bias=False, dtype=torch.float32)
            with torch.no_grad():
                if head is None:
                    self.note(f"{name}: a new score layer, drawn at random, takes the place of the language-model head")
                    layer.weight.normal_(0.0, head_init_std(width))  # on the CPU: every device starts from the same
                else:
                    layer.weight.copy_(head)
            self.heads[name] = layer.to(model.device).requires_grad_(role.trainable)

    def forward(
        self,
        batch: PackedBatch,
        role: str,
        *,
        temperature: float = 1.0,
        with_entropy: bool = False,
        with_vocabulary: bool = False,
        cache: AnyCache | None = None,
    ) -> TokenLogprobs | VocabularyLogprobs | Float[Tensor, "M"] | Float[Tensor, "S"] | Float[Tensor, "S V"]:
        """Log-probabilities of the targets, values before the targets, or scores at the last tokens, by the role.

        With a `cache` (generation) the result is instead the logits of each sequence's next token.
        """
        assert self._awaiting_backward in (None, role), f"{role}: the backward of {self._awaiting_backward} comes first"
        spec = self.roles[role]
        if self.training != torch.is_grad_enabled():
            # An adapter's dropout is for gradients only, and transformers' checkpointed layers drop a cache then.
            self.train(torch.is_grad_enabled())
        model = self.plain(spec.backbone)
        self._activate(spec)
        output_layer = output_embedding(model)
        if cache is not None:
            return output_layer(next_hidden_states(decoder_of(model), batch, cache)).float()
        packed = self.packed[spec.backbone]
        alpha = self.noise.get(role, 0.0) if torch.is_grad_enabled() else 0.0
        with noisy_embeddings(input_embedding(model), batch, alpha, packed=packed) if alpha else nullcontext():
            hidden = hidden_states(decoder_of(model), batch, packed=packed)
        if spec.output == "logprobs":
            head = (
                hidden[batch.predictors], output_layer.weight, output_layer.bias, batch.input_ids[batch.targets]
            )  # fmt: skip
            chunk = LOGITS_CHUNK[hidden.device.type]
            if with_vocabulary:
                result = VocabularyLogprobs(*linear_vocabulary(*head, temperature=temperature, chunk=chunk))
            else:
                result = TokenLogprobs(
                    *linear_logprobs(*head, temperature=temperature, chunk=chunk, with_entropy=with_entropy)
                )
            self._expect_backward(role, result.logprobs)
            return result
        positions = batch.predictors if spec.output == "values" else batch.last_tokens
        result = self.heads[role](hidden[positions].float()).squeeze(-1)
        self._expect_backward(role, result)
        return result

    def trainable(self, role: str) -> dict[str, nn.Parameter]:
        """The parameters that the role's optimizer owns, by name."""
        assert self.roles[role].trainable, role
        return {name: p for name, p in self.own(role).items() if p.requires_grad}

    def own(self, role: str) -> dict[str, nn.Parameter]:
        """The parameters of the role's adapter, or of its whole backbone, and of its head, by name."""
        spec = self.roles[role]
        backbone = self.backbones[spec.backbone]
        prefix = f"backbones.{spec.backbone}."
        if spec.adapter is None:
            found = {prefix + name: p for name, p in backbone.named_parameters()}
        else:
            found = {
                prefix + name: p
                for name, p in adapters.adapter_parameters(self.adapted(spec.backbone), spec.adapter).items()
            }
        if role in self.heads:
            found |= {f"heads.{role}.{name}": p for name, p in self.heads[role].named_parameters()}
        return found

    def set_requires_grad(self) -> None:
        """Trainable roles' parameters require gradients, all others do not; called once, after all roles are added."""
        self.requires_grad_(requires_grad=False)
        for name, spec in self.roles.items():
            if not spec.trainable:
                continue
            for parameter in self.own(name).values():
                parameter.requires_grad = True
            if spec.adapter is None and spec.output != "logprobs":  # nothing reads a scorer's language-model head
                self._freeze_untied_head(spec.backbone)

    def checkpoint_activations(self) -> None:
        """Recompute each layer in the backward pass."""
        for name in self.backbones:
            model = self.plain(name)
            model.activation_checkpointing_enable(activation_checkpointing_kwargs={"use_reentrant": False})

    def units(self) -> Iterator[nn.Module]:
        """The layers that sharding gathers one at a time."""
        for name in self.backbones:
            kinds = set(self.plain(name)._no_split_modules or ())
            yield from (module for module in self.backbones[name].modules() if type(module).__name__ in kinds)

    def trainable_fraction(self, role: str) -> float:
        """Share of the role's weights that are trained, for the count of floating-point work."""
        trained = sum(p.numel() for p in self.trainable(role).values())
        return trained / max(1, sum(p.numel() for p in self.causal_lm(role).parameters()))

    def backbone(self, name: str) -> PreTrainedModel | adapters.PeftModel:
        """A model that roles stand on, with the adapters it carries."""
        model = self.backbones[name]
        assert isinstance(model, PreTrainedModel | adapters.PeftModel)
        return model

    def adapted(self, name: str) -> adapters.PeftModel:
        """A backbone that carries adapters."""
        model = self.backbones[name]
        assert isinstance(model, adapters.PeftModel)
        return model

    def head(self, role: str) -> nn.Linear:
        """The layer that gives a scorer's number."""
        layer = self.heads[role]
        assert isinstance(layer, nn.Linear)
        return layer

    def packs(self, role: str) -> bool:
        """Whether the role's sequences run packed, and so may share their beginnings."""
        return self.packed[self.roles[role].backbone]

    def causal_lm(self, role: str) -> PreTrainedModel:
        """The transformers model a role stands on."""
        return self.plain(self.roles[role].backbone)

    def plain(self, backbone: str) -> PreTrainedModel:
        """The transformers model below a backbone's adapters."""
        model = self.backbones[backbone]
        base = model.get_base_model() if isinstance(model, adapters.PeftModel) else model
        assert isinstance(base, PreTrainedModel)
        return base

    def _activate(self, spec: Role) -> None:
        """Switch the backbone to the role's adapter; walking all its modules is a tenth of a decode step."""
        if spec.backbone not in self._active:
            self._layers[spec.backbone] = adapters.adapted_layers(self.backbone(spec.backbone))
        elif self._active[spec.backbone] == spec.adapter:
            return
        adapters.activate(self._layers[spec.backbone], spec.adapter)
        self._active[spec.backbone] = spec.adapter

    def _freeze_untied_head(self, backbone: str) -> None:
        model = self.plain(backbone)
        head = output_embedding(model).weight
        if head is not input_embedding(model).weight:
            head.requires_grad = False

    def _expect_backward(self, role: str, result: Tensor) -> None:
        if not (torch.is_grad_enabled() and result.requires_grad):
            return
        self._awaiting_backward = role
        result.register_hook(self._backward_began)

    def _backward_began(self, gradient: Tensor) -> Tensor:
        self._awaiting_backward = None
        return gradient
