"""Draw the next token of each row from its logits. Pure: the randomness comes in as one number per row."""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import pad

from fairlead.algos.masked import upcast

BLOCK = 256  # tokens summed at once in the search for the drawn one


def next_tokens(
    logits: Float[Tensor, "B V"],
    uniforms: Float[Tensor, "B"],
    seen: Bool[Tensor, "B V"] | None,
    *,
    temperature: float,
    top_k: int,
    top_p: float,
    min_p: float,
    repetition_penalty: float,
    changed: Float[Tensor, "B V"] | None = None,
) -> tuple[Int[Tensor, "B"], Float[Tensor, "B"]]:
    """The next token of each row and its log-probability in nats.

    `uniforms` are numbers in [0, 1): row b takes the first token at which the cumulative probability exceeds
    uniforms[b], so a row's token depends on nothing but its own logits and number. They are unused at temperature 0,
    which takes the most likely token. `seen` marks the tokens of prompt and response for the repetition penalty.
    `changed` are logits with other penalties on them, to draw from instead.

    The order is that of transformers: penalty, temperature, top-k, top-p, min-p; 0, 1, 0 and 1 switch the filters and
    the penalty off. The log-probability is that of the model's own distribution at the sampling temperature (at
    temperature 1 when it is 0), without penalty and filters: what the trainer computes again for the same token.
    """
    logits = upcast(logits)
    logprobs = torch.log_softmax(logits / temperature if temperature not in (0, 1) else logits, dim=-1)
    filtered = logits if changed is None else upcast(changed)
    if repetition_penalty != 1.0:
        assert seen is not None, "a repetition penalty needs the tokens seen"
        filtered = penalise_repetition(filtered, seen, repetition_penalty)
    if temperature == 0:
        tokens = filtered.argmax(dim=-1)
    else:
        filtered = filtered / temperature if temperature != 1.0 else filtered
        filtered = keep_top_k(filtered, top_k) if top_k > 0 else filtered
        filtered = keep_top_p(filtered, top_p) if top_p < 1.0 else filtered
        filtered = keep_min_p(filtered, min_p) if min_p > 0.0 else filtered
        plain = top_k == 0 and top_p == 1.0 and min_p == 0.0 and repetition_penalty == 1.0 and changed is None
        tokens = _inverse_cdf(logprobs.exp() if plain else torch.softmax(filtered, dim=-1), uniforms)
    return tokens, logprobs.gather(-1, tokens[:, None])[:, 0]


def penalise_repetition(
    logits: Float[Tensor, "B V"], seen: Bool[Tensor, "B V"], penalty: float
) -> Float[Tensor, "B V"]:
    """Divide the positive logits of seen tokens by the penalty, multiply the negative ones (CTRL, 2019)."""
    return torch.where(seen, torch.where(logits < 0, logits * penalty, logits / penalty), logits)


def penalise_drawn(
    logits: Float[Tensor, "B V"], said: Int[Tensor, "B V"], presence: float, frequency: float
) -> Float[Tensor, "B V"]:
    """Take `presence` off the logits of tokens that the response holds, `frequency` for each time (OpenAI's API)."""
    return upcast(logits) - presence * (said > 0) - frequency * said


def forbid(logits: Float[Tensor, "B V"], banned: Sequence[Sequence[int]]) -> Float[Tensor, "B V"]:
    """Minus infinity for each row's banned tokens."""
    changed = logits.clone()
    for row, tokens in enumerate(banned):
        changed[row, list(tokens)] = -torch.inf
    return changed


def likeliest(logits: Float[Tensor, "B V"], temperature: float, num: int) -> list[tuple[tuple[int, float], ...]]:
    """Each row's likeliest tokens with their log-probabilities as `next_tokens` has them, best first."""
    scaled = upcast(logits)
    logprobs = torch.log_softmax(scaled / temperature if temperature not in (0, 1) else scaled, dim=-1)
    best = logprobs.topk(min(num, logprobs.shape[-1]), dim=-1)
    return [
        tuple(zip(tokens, values, strict=True))
        for tokens, values in zip(best.indices.tolist(), best.values.tolist(), strict=True)
    ]


def keep_top_k(logits: Float[Tensor, "B V"], top_k: int) -> Float[Tensor, "B V"]:
    """Minus infinity for all but the k largest logits; ties with the k-th stay."""
    smallest_kept = logits.topk(min(top_k, logits.shape[-1]), dim=-1).values[:, -1:]
    return logits.masked_fill(logits < smallest_kept, -torch.inf)


def keep_top_p(logits: Float[Tensor, "B V"], top_p: float) -> Float[Tensor, "B V"]:
    """Minus infinity for all but the smallest set of tokens with probability at least top_p (Holtzman et al. 2020)."""
    ascending, order = logits.sort(dim=-1, stable=True)
    dropped = torch.softmax(ascending, dim=-1).cumsum(dim=-1) <= 1.0 - top_p
    dropped[:, -1] = False  # the most likely token stays, whatever rounding says
    return logits.masked_fill(torch.empty_like(dropped).scatter_(1, order, dropped), -torch.inf)


def keep_min_p(logits: Float[Tensor, "B V"], min_p: float) -> Float[Tensor, "B V"]:
    """Minus infinity for tokens below min_p times the probability of the most likely one (Nguyen et al. 2024)."""
    probabilities = torch.softmax(logits, dim=-1)
    return logits.masked_fill(probabilities < min_p * probabilities.amax(dim=-1, keepdim=True), -torch.inf)


def _inverse_cdf(probabilities: Float[Tensor, "B V"], uniforms: Float[Tensor, "B"]) -> Int[Tensor, "B"]:
    """The first token at which the cumulative probability exceeds the row's number: first its block, then its place.

    Cumulative sums are float64: in float32 one over 50 000 tokens is off by more than the probability of a rare token.
    The sum of one block is float32, right to 1e-7 of itself; blocks take a quarter of the time of one long sum.
    """
    num_rows, size = probabilities.shape
    blocks = pad(probabilities, (0, -size % BLOCK)).view(num_rows, -1, BLOCK)
    before = blocks.sum(dim=-1).cumsum(dim=-1, dtype=torch.float64)
    point = uniforms.double() * before[:, -1]
    block = _first_above(before, point)
    rows = torch.arange(num_rows, device=probabilities.device)
    within = blocks[rows, block].cumsum(dim=-1, dtype=torch.float64)
    start = torch.where(block > 0, before[rows, (block - 1).clamp(min=0)], 0.0)
    return block * BLOCK + _first_above(within, point - start)


def _first_above(cumulative: Float[Tensor, "B K"], point: Float[Tensor, "B"]) -> Int[Tensor, "B"]:
    """Index of the first sum above the point; rounding never leads past the last step of the sum."""
    total = cumulative[:, -1]
    point = torch.minimum(point, torch.nextafter(total, torch.zeros_like(total)))
    return torch.searchsorted(cumulative, point[:, None], right=True)[:, 0]
