"""Log-probabilities of tokens and the entropy of the distribution they came from, in nats."""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import linear

from fairlead.algos.masked import upcast

WEIGHT_BLOCK = 512  # targets whose gradients of logits stay until one product adds them to the head's gradient
KEPT_BYTES = 2**28  # 16-bit logits up to this size are kept for the backward pass instead of computed again


def token_logprobs(
    logits: Float[Tensor, "M V"], targets: Int[Tensor, "M"], *, temperature: float = 1.0
) -> Float[Tensor, "M"]:
    """Log-probability of each target under softmax(logits / temperature), temperature > 0."""
    return torch.log_softmax(upcast(logits) / temperature, dim=-1).gather(-1, targets[:, None])[:, 0]


def entropy(logits: Float[Tensor, "M V"], *, temperature: float = 1.0) -> Float[Tensor, "M"]:
    """Entropy of softmax(logits / temperature), between 0 and ln V. A logit of minus infinity adds nothing."""
    return _entropy_of(torch.log_softmax(upcast(logits) / temperature, dim=-1))


def linear_logprobs(
    hidden: Float[Tensor, "M D"],
    weight: Float[Tensor, "V D"],
    bias: Float[Tensor, "V"] | None,
    targets: Int[Tensor, "M"],
    *,
    temperature: float,
    chunk: int,
    with_entropy: bool,
) -> tuple[Float[Tensor, "M"], Float[Tensor, "M"] | None]:
    """Log-probability of each target and, if wanted, entropy, straight from the hidden states and the head.

    The same numbers as `token_logprobs(linear(hidden, weight, bias), targets)` and `entropy`, but float32 logits exist
    for `chunk` targets at a time: 4 V bytes per target are never held for all M. As 16-bit numbers they are kept for
    the backward pass where they fit into KEPT_BYTES, and turn into their gradients in place; otherwise they are
    computed again, chunk by chunk. A trained head then keeps the gradients of WEIGHT_BLOCK targets' logits: its own
    gradient is as large as the head, and adding to it once a chunk costs more than the product.
    Gradients reach hidden, weight and bias, each only if it asks for one, so a frozen head costs no product of its own.
    The entropy is a metric and carries no gradient; it costs passes over V numbers per target, so only who reads it
    asks for it.
    """
    logprobs, entropies, _, _ = _LinearLogprobs.apply(
        hidden, weight, bias, targets, temperature, chunk, with_entropy, False, _may_be_kept(hidden, weight)
    )
    return logprobs, entropies if with_entropy else None


def linear_vocabulary(
    hidden: Float[Tensor, "M D"],
    weight: Float[Tensor, "V D"],
    bias: Float[Tensor, "V"] | None,
    targets: Int[Tensor, "M"],
    *,
    temperature: float,
    chunk: int,
) -> tuple[Float[Tensor, "M"], Float[Tensor, "M"], Float[Tensor, "M"]]:
    """Log-probability of each target, its mean over the whole vocabulary, and the log of the normaliser.

    As `linear_logprobs`, all three with gradient: what label smoothing and the z-loss are made of. A forbidden token
    (a bias of minus infinity) makes the mean minus infinity.
    """
    logprobs, _, means, totals = _LinearLogprobs.apply(
        hidden, weight, bias, targets, temperature, chunk, False, True, _may_be_kept(hidden, weight)
    )
    return logprobs, means, totals


def _may_be_kept(hidden: Tensor, weight: Tensor) -> bool:
    """Whether the logits of all targets may wait for a backward pass."""
    size = len(hidden) * len(weight) * hidden.element_size()
    return torch.is_grad_enabled() and hidden.element_size() == 2 and size <= KEPT_BYTES


class _LinearLogprobs(torch.autograd.Function):
    """Keeps its inputs, which exist anyway, the normaliser of each target and, where they are small, the logits.

    Works in place on each chunk of logits: V is large, and every pass over them costs as much as some layers.
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        targets: Tensor,
        temperature: float,
        chunk: int,
        with_entropy: bool,
        with_mean: bool,
        keep: bool,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        dtype = torch.promote_types(hidden.dtype, torch.float32)
        logprobs, totals = (torch.empty(len(targets), dtype=dtype, device=hidden.device) for _ in range(2))
        entropies = torch.empty(len(targets) if with_entropy else 0, dtype=dtype, device=hidden.device)
        means = torch.empty(len(targets) if with_mean else 0, dtype=dtype, device=hidden.device)
        kept = linear(hidden, weight, bias) if keep else None
        for start in range(0, len(targets), chunk):
            part = slice(start, start + chunk)
            logits = _tempered(linear(hidden[part], weight, bias) if kept is None else kept[part], temperature)
            chosen = logits.gather(-1, targets[part, None])[:, 0]
            highest = logits.amax(dim=-1)
            if with_mean:
                means[part] = logits.mean(dim=-1)
            shifted = logits.sub_(highest[:, None])
            if with_entropy:
                # H = log sum exp(x) - sum x exp(x) / sum exp(x); a logit of minus infinity adds nothing
                weights = shifted.exp()
                sums = weights.sum(dim=-1)
                mean = weights.mul_(shifted.clamp_(min=torch.finfo(dtype).min)).sum(dim=-1) / sums
                entropies[part] = sums.log() - mean
            else:
                sums = shifted.exp_().sum(dim=-1)
            totals[part] = highest + sums.log()
            logprobs[part] = chosen - totals[part]
        ctx.save_for_backward(hidden, weight, bias, targets, totals)
        if with_mean:
            means -= totals
        ctx.temperature, ctx.chunk, ctx.with_mean, ctx.kept = temperature, chunk, with_mean, kept
        ctx.mark_non_differentiable(entropies)
        return logprobs, entropies, means, totals.clone() if with_mean else totals.new_empty(0)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Any) -> tuple[Tensor | None, ...]:  # pyrefly: ignore[bad-override]
        grad_logprobs, _, grad_means, grad_totals = grad_outputs
        hidden, weight, bias, targets, totals = ctx.saved_tensors
        dtype = grad_logprobs.dtype
        grad_hidden = torch.empty_like(hidden) if ctx.needs_input_grad[0] else None
        grad_weight: Tensor | None = None
        grad_bias = torch.zeros_like(bias, dtype=dtype) if ctx.needs_input_grad[2] else None
        kept, ctx.kept = ctx.kept, None  # a second pass through the graph finds none, and computes them again
        block = max(ctx.chunk, WEIGHT_BLOCK) if ctx.needs_input_grad[1] else ctx.chunk
        block = block if kept is None else max(1, len(targets))
        for first in range(0, len(targets), block):
            whole = slice(first, min(first + block, len(targets)))
            grad_block = hidden.new_empty(whole.stop - first, len(weight)) if kept is None else kept
            for start in range(first, whole.stop, ctx.chunk):
                part = slice(start, min(start + ctx.chunk, whole.stop))
                # d logprob[target] / d logits = (one-hot(target) - softmax) / temperature; of the mean log-probability
                # (1 / V - softmax) / temperature, of the log of the normaliser softmax / temperature
                seeds = grad_logprobs[part, None] / ctx.temperature
                uniform = grad_means[part, None] / ctx.temperature if ctx.with_mean else None
                of_softmax = seeds
                if uniform is not None:
                    of_softmax = seeds + uniform - grad_totals[part, None] / ctx.temperature
                found = linear(hidden[part], weight, bias) if kept is None else kept[part]
                logits = _tempered(found, ctx.temperature)
                grad_logits = logits.sub_(totals[part, None]).exp_().mul_(-of_softmax)
                if uniform is not None:
                    grad_logits += uniform / grad_logits.shape[1]
                grad_logits.scatter_add_(1, targets[part, None], seeds)
                if grad_bias is not None:
                    grad_bias += grad_logits.sum(dim=0)
                grad_block[start - first : part.stop - first] = grad_logits
            if grad_hidden is not None:
                grad_hidden[whole] = grad_block @ weight
            if ctx.needs_input_grad[1]:
                share = grad_block.T @ hidden[whole]
                # Sums over blocks are kept in float32: a bfloat16 sum would lose the small ones.
                if grad_weight is None:
                    grad_weight = share if block >= len(targets) else share.to(dtype)
                else:
                    grad_weight += share
        if ctx.needs_input_grad[1] and grad_weight is None:
            grad_weight = torch.zeros_like(weight)  # no target
        return (
            grad_hidden,
            None if grad_weight is None else grad_weight.to(weight.dtype),
            None if grad_bias is None else grad_bias.to(bias.dtype),
            *[None] * 6,
        )


def _tempered(logits: Tensor, temperature: float) -> Tensor:
    """In float32 (or float64), to be worked on in place: 16-bit logits stay as they are."""
    logits = upcast(logits)
    return logits.div_(temperature) if temperature != 1.0 else logits


def _entropy_of(distribution: Float[Tensor, "M V"]) -> Float[Tensor, "M"]:
    # The clamp turns 0 * -inf into 0, in the value and in the gradient.
    finite = distribution.clamp(min=torch.finfo(distribution.dtype).min)
    return -(distribution.exp() * finite).sum(dim=-1)
