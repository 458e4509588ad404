"""fairlead's engine: one response to each prompt, sampled at temperature 1, with its log-probabilities.

Each round then measures what the forward passes alone would allow: decode steps of the round's mean batch at its mean
context, without a read of prompts and without sampling.
"""

import time

import rollouts
import torch
from setting import RUNTIME
from side import Turn

from fairlead.batches import PackedBatch
from fairlead.config.common import SamplingConfig
from fairlead.data.collate import collate
from fairlead.data.examples import Example
from fairlead.generate.engine import Engine
from fairlead.generate.requests import Response
from fairlead.models.build import add_frozen
from fairlead.models.kv_cache import SlotCache
from fairlead.models.prepacked import Prepacked
from fairlead.models.roles import Roles
from fairlead.runtime.start import Runtime, start

NUM_STEPS = 20


def main() -> None:
    """Generate until told to stop."""
    arguments = rollouts.parser().parse_args()
    turn = Turn()
    turn.imported()
    runtime = start(RUNTIME)
    source, template = rollouts.model()
    roles = Roles()
    add_frozen(roles, "policy", source, "logprobs", runtime)
    prompts = rollouts.prompts(template, arguments.prompts)
    engine = Engine(roles, "policy", template.end_token_ids, runtime)
    rows: list[int] = []  # of each decode step
    roles.register_forward_hook(lambda _roles, inputs, _output: rows.append(_decoded(inputs[0])))
    turn.begin(torch=torch.__version__, threads=runtime.num_threads, prompts=len(prompts))
    for first_seed in range(0, 10**9, len(prompts)):
        rows.clear()
        began = time.perf_counter()
        responses = engine.generate(
            prompts, SamplingConfig(max_new_tokens=arguments.max_new_tokens),
            seeds=range(first_seed, first_seed + len(prompts)),
        )  # fmt: skip
        seconds = time.perf_counter() - began
        tokens, logprobs = _counted(responses)
        measured = {"seconds": seconds, "units": tokens, "tokens": tokens, "mean_logprob": logprobs}
        if runtime.device.type == "cpu":  # on a GPU steps are recorded and played, and no forward is seen
            steps = [count for count in rows if count]
            bound = _forward_only(roles, runtime, round(sum(steps) / len(steps)), _mean_context(prompts, responses))
            measured["share_of_bound"] = tokens / seconds / bound
        turn.end(**measured)


def _decoded(batch: PackedBatch) -> int:
    """Rows of a decode step; 0 for a read of prompts."""
    return len(batch.lengths) if set(batch.lengths) == {1} else 0


def _counted(responses: list[Response]) -> tuple[int, float]:
    tokens = sum(len(response.tokens) for response in responses)
    return tokens, sum(sum(response.logprobs) for response in responses) / tokens


def _mean_context(prompts: list[tuple[int, ...]], responses: list[Response]) -> int:
    """Tokens before a generated one, on average over all generated ones."""
    lengths = [(len(p), len(r.tokens)) for p, r in zip(prompts, responses, strict=True)]
    return round(sum((p + r / 2) * r for p, r in lengths) / sum(r for _, r in lengths))


@torch.no_grad()
def _forward_only(roles: Roles, runtime: Runtime, num_rows: int, context: int) -> float:
    """Tokens per second of decode steps."""
    cache = SlotCache(num_rows, runtime.device)
    ids = torch.randint(0, 1000, (num_rows, context)).tolist()
    with Prepacked(roles.backbone(roles.roles["policy"].backbone)).in_use():
        cache.enter((context,) * num_rows, tuple(range(num_rows)))
        roles(collate([Example(tuple(row), (False,) * context, "") for row in ids]), "policy", cache=cache)
        one = collate([Example((row[0],), (False,), "") for row in ids])
        seconds = []
        for _ in range(NUM_STEPS):
            began = time.perf_counter()
            cache.expect_token()
            roles(one, "policy", cache=cache)
            seconds.append(time.perf_counter() - began)
    return num_rows * len(seconds[2:]) / sum(seconds[2:])


if __name__ == "__main__":
    main()
