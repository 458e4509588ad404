"""transformers' `generate` on the same prompts: left-padded batches, its default cache, sampled at temperature 1.

The batch size is the fastest of those tried before the first round, over prompts sorted by length. Log-probabilities of
the drawn tokens come from a logits processor that keeps one normaliser a step: the cheapest way its interface has.
"""

import time

import rollouts
import torch
import transformers
from setting import DEVICE
from side import Turn, facts
from transformers import AutoModelForCausalLM, LogitsProcessor, PreTrainedModel


class Logprobs(LogitsProcessor):
    """The log-probability of each drawn token; the scores pass through unchanged."""

    def __init__(self) -> None:
        self._before: torch.Tensor | None = None
        self.columns: list[torch.Tensor] = []

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Hear the token drawn last, then the scores of the next."""
        self.hear(input_ids)
        self._before = scores
        return scores

    def hear(self, input_ids: torch.Tensor) -> None:
        """The last token was drawn from the scores before."""
        if self._before is not None:
            drawn = self._before.gather(1, input_ids[:, -1:])[:, 0]
            self.columns.append(drawn - self._before.logsumexp(1))


def main() -> None:
    """Generate until told to stop."""
    arguments = rollouts.parser().parse_args()
    turn = Turn()
    turn.imported()
    source, template = rollouts.model()
    model = AutoModelForCausalLM.from_pretrained(source.base.folder, dtype=torch.bfloat16).eval().to(DEVICE)
    prompts = sorted(rollouts.prompts(template, arguments.prompts), key=len)
    ends = list(template.end_token_ids)
    speeds = {}
    for batch_size in {min(size, len(prompts)) for size in (16, 32, 64)}:
        generate(model, prompts[:batch_size], ends, batch_size, 4)
        began = time.perf_counter()
        tokens, _ = generate(model, prompts, ends, batch_size, arguments.max_new_tokens)
        speeds[batch_size] = tokens / (time.perf_counter() - began)
    best = max(speeds, key=lambda size: speeds[size])
    turn.begin(**facts(model, torch, transformers, batch_size=best, tokens_per_second_by_batch_size=speeds))
    while True:
        tokens, logprobs = generate(model, prompts, ends, best, arguments.max_new_tokens)
        turn.end(units=tokens, tokens=tokens, mean_logprob=logprobs / tokens)


def generate(
    model: PreTrainedModel, prompts: list[tuple[int, ...]], ends: list[int], batch_size: int, max_new_tokens: int
) -> tuple[int, float]:
    """Generated tokens, end tokens included, and the sum of their log-probabilities."""
    tokens, total = 0, 0.0
    for start in range(0, len(prompts), batch_size):
        rows = prompts[start : start + batch_size]
        width = max(map(len, rows))
        ids = torch.tensor([[ends[0]] * (width - len(row)) + list(row) for row in rows], device=DEVICE)
        mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows], device=DEVICE)
        logprobs = Logprobs()
        out = model.generate(
            ids, attention_mask=mask, do_sample=True, temperature=1.0, top_k=0, top_p=1.0, eos_token_id=ends,
            pad_token_id=ends[0], max_new_tokens=max_new_tokens, logits_processor=[logprobs],
        )  # fmt: skip
        logprobs.hear(out)
        ended = torch.isin(out[:, width:], torch.tensor(ends, device=DEVICE)).int()
        real = ended.cumsum(1) - ended == 0  # up to the first end token
        tokens += int(real.sum())
        total += float(torch.stack(logprobs.columns, 1)[real].sum())
    return tokens, total


if __name__ == "__main__":
    main()
