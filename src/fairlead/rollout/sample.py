"""Sampling responses on all ranks and measuring them with every role."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from fairlead.batches import Rollout
from fairlead.config.common import ForwardConfig, SamplingConfig
from fairlead.data.examples import Example
from fairlead.generate.engine import Engine
from fairlead.generate.requests import Response
from fairlead.models.outputs import per_sequence
from fairlead.models.roles import Roles
from fairlead.runtime.start import Runtime


def sample_responses(
    engine: Engine,
    prompts: Sequence[tuple[int, ...]],
    sampling: SamplingConfig,
    *,
    seeds: Sequence[int],
    limits: Sequence[int] | None = None,
    runtime: Runtime,
) -> list[Response]:
    """Each rank answers its share of the prompts; every rank gets all responses, in the order of the prompts."""
    ranks = runtime.ranks
    indices = list(range(len(prompts)))
    indices += [0] * (-len(indices) % ranks.world_size)
    mine = indices[ranks.rank :: ranks.world_size]
    drawn = engine.generate(
        [prompts[i] for i in mine], sampling, seeds=[seeds[i] for i in mine],
        limits=[limits[i] for i in mine] if limits else None,
    )  # fmt: skip
    if ranks.world_size == 1:
        return drawn
    rows = [
        torch.tensor([*r.tokens, *r.logprobs, r.finished], dtype=torch.float64, device=runtime.device) for r in drawn
    ]
    gathered = ranks.gather_rows(rows)
    return [_response(gathered[i % ranks.world_size][i // ranks.world_size]) for i in range(len(prompts))]


def episodes(prompts: Sequence[tuple[int, ...]], responses: Sequence[Response]) -> list[Example]:
    """Prompt and response as one sequence whose response tokens are the targets."""
    return [
        Example((*prompt, *r.tokens), (False,) * len(prompt) + (True,) * len(r.tokens), "")
        for prompt, r in zip(prompts, responses, strict=True)
    ]


def scored_texts(
    prompts: Sequence[tuple[int, ...]], responses: Sequence[Response], *, score_at: str, end_token_ids: Sequence[int]
) -> list[Example]:
    """The sequences a reward model reads, each ending where it learnt to give its score.

    `end_token`: an end token follows every response, added to one that was cut off. `last_token`: none does.
    """
    rows = []
    for prompt, response in zip(prompts, responses, strict=True):
        tokens = response.tokens
        if tokens and tokens[-1] in end_token_ids:
            tokens = tokens[:-1]
        ending = (end_token_ids[0],) if score_at == "end_token" else ()
        row = (*prompt, *tokens, *ending)
        rows.append(Example(row, (False,) * len(prompt) + (True,) * (len(row) - len(prompt)), ""))
    return rows


def score_responses(
    roles: Roles, role: str, texts: Sequence[Example], batch: ForwardConfig, runtime: Runtime
) -> Tensor:
    """The reward model's score [B] of each text, fp32."""
    return torch.cat(per_sequence(roles, role, texts, batch, runtime))


def measure_rollout(
    roles: Roles,
    prompts: Sequence[tuple[int, ...]],
    responses: Sequence[Response],
    scores: Tensor,
    *,
    temperature: float,
    batch: ForwardConfig,
    runtime: Runtime,
) -> Rollout:
    """Log-probabilities under policy and reference, and values if there is a critic, at the sampling temperature."""
    critic = "critic" in roles.roles
    rows = episodes(prompts, responses)
    mask = _matrix([torch.ones(len(r.tokens), dtype=torch.bool) for r in responses])
    return Rollout(
        prompts=tuple(prompts),
        responses=_matrix([torch.tensor(r.tokens, dtype=torch.int64) for r in responses]),
        response_mask=mask,
        finished=torch.tensor([r.finished for r in responses]),
        sampler_logprobs=_matrix([torch.tensor(r.logprobs, dtype=torch.float32) for r in responses]),
        old_logprobs=_matrix(per_sequence(roles, "policy", rows, batch, runtime, temperature=temperature)),
        reference_logprobs=_matrix(per_sequence(roles, "reference", rows, batch, runtime, temperature=temperature)),
        values=_matrix(per_sequence(roles, "critic", rows, batch, runtime)) if critic else torch.zeros(mask.shape),
        scores=scores,
    )


def _matrix(rows: Sequence[Tensor]) -> Tensor:
    """Ragged rows as [B, R], filled up with zeros."""
    return pad_sequence(list(rows), batch_first=True)


def _response(row: Tensor) -> Response:
    values = row.tolist()
    count = (len(values) - 1) // 2
    return Response(tuple(int(v) for v in values[:count]), tuple(values[count:-1]), bool(values[-1]))
