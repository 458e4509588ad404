"""What a journey will take on this machine: tokens to pass, a timed matrix product, and the time they make together.

The estimate counts matrix work only and divides by the measured rate times a utilisation that was measured once per
kind of work (experiments/LOG.md, "Estimates"); it is right within a factor of two, which is what a plan needs.
"""

from dataclasses import dataclass
from math import ceil

from fairlead.config.journey import JourneyConfig, SplitConfig
from fairlead.config.online import GrpoConfig, PpoConfig
from fairlead.config.replies import RepliesConfig
from fairlead.config.stages import RewardConfig, SftConfig
from fairlead.evaluate.wording import duration, size
from fairlead.models.facts import ModelFacts, model_facts
from fairlead.runtime.machine import matrix_rate, pass_tokens
from fairlead.runtime.start import Runtime, start

TRAIN_UTILISATION = 0.45  # of the matrix rate, forward and backward
FORWARD_UTILISATION = 0.5
DECODE_UTILISATION = 0.12  # small batches, memory-bound
TYPICAL_PROMPT_TOKENS = 60
TYPICAL_ROW_TOKENS = 180


@dataclass(frozen=True)
class Estimate:
    """Seconds of work, bytes of memory at the peak, bytes on disk of one stage."""

    seconds: float
    memory_bytes: float
    disk_bytes: float


@dataclass(frozen=True)
class _Rates:
    """Tokens per second of each kind of work for one model on this machine."""

    train: float
    forward: float
    decode: float

    @classmethod
    def of(cls, model: ModelFacts, rate: float) -> "_Rates":
        return cls(
            train=rate * TRAIN_UTILISATION / (4.0 * model.matrix_weights),
            forward=rate * FORWARD_UTILISATION / (2.0 * model.matrix_weights),
            decode=rate * DECODE_UTILISATION / (2.0 * model.matrix_weights),
        )


def estimate(journey: JourneyConfig) -> dict[str, Estimate]:
    """Each step's cost, by its name. Nothing is loaded: weights are counted from the model's config."""
    runtime = start(journey.runtime)
    model = model_facts(_base(journey))
    rates = _Rates.of(model, matrix_rate(runtime.device, runtime.dtype, seconds=0.3))
    found = {step.name: _stage(journey, step.stage, rates, model, runtime) for step in journey.steps}
    if journey.eval is not None:
        policies = [step for step in journey.steps if step.stage in ("sft", "dpo", "kto", "ppo", "grpo")]
        found["eval"] = _eval(journey, rates, model, len(policies))
    return found


def _base(journey: JourneyConfig) -> str:
    """The first model of the recipe that is not made by the recipe itself."""
    trained = [
        stage.model.name
        for stage in (journey.sft, journey.reward, journey.dpo, journey.kto, journey.ppo, journey.grpo)
        if stage
    ]
    named = [*trained, *([journey.replies.model] if journey.replies else [])]
    split = journey.split or SplitConfig()
    return next((name for name in named if not name.startswith("@")), split.tokenizer)


def describe(estimates: dict[str, Estimate]) -> str:
    """A table for the terminal."""
    lines = [f"{'stage':<16} time         memory     disk"]
    lines += [
        f"{name:<16} {duration(e.seconds):<12} {size(int(e.memory_bytes)):<10} {size(int(e.disk_bytes))}"
        for name, e in estimates.items()
    ]
    total = sum(e.seconds for e in estimates.values())
    peak = max((e.memory_bytes for e in estimates.values()), default=0.0)
    disk = sum(e.disk_bytes for e in estimates.values())
    lines.append(f"{'in all':<16} {duration(total):<12} {size(int(peak)):<10} {size(int(disk))}")
    lines.append("an estimate from a matrix product timed just now; right within a factor of two")
    return "\n".join(lines)


def _stage(journey: JourneyConfig, name: str, rates: _Rates, model: ModelFacts, runtime: Runtime) -> Estimate:
    split = journey.split
    num_sources = len(split.sources) if split else 0
    start_up = 8.0
    if name == "split":
        return Estimate(start_up, 5e8, 1e6 * num_sources)
    if name == "replies":
        assert journey.replies is not None
        parts = {"train": "preference", "held_out": "held_out"}
        answered = [name for part, name in parts.items() if getattr(journey.replies.data, part)]
        rows = num_sources * sum(getattr(split, name) for name in answered) if split else 256
        seconds = rows * _reply_seconds(journey.replies, rates)
        return Estimate(start_up + seconds, 3.0 * model.weight_bytes(runtime.dtype.itemsize) + 1e9, 1e6)
    config = getattr(journey, name)
    memory = _training_memory(config, model, runtime)
    disk = _trained_weights(config, model) * 14.0
    if name == "ppo":
        return Estimate(start_up + _ppo_seconds(config, rates), 1.3 * memory, 2.0 * disk)
    if name == "grpo":
        return Estimate(start_up + _grpo_seconds(config, rates), 1.2 * memory, disk)
    rows = _rows(journey, name, config)
    per_row = {"sft": TYPICAL_ROW_TOKENS, "reward": 2 * 110, "dpo": 2 * 110, "kto": 110}[name]
    steps = ceil(rows / config.batch.rows) * config.num_epochs
    steps = min(steps, config.max_steps) if config.max_steps else steps
    tokens = steps * config.batch.rows * min(per_row, 2 * config.data.max_length)
    # Of dpo the reference reads every row once; of kto also mismatched ones, which the policy reads in every epoch
    passes = {"dpo": 1.0, "kto": 2.0 + config.num_epochs}.get(name, 0.0) / config.num_epochs
    return Estimate(start_up + tokens / rates.train + passes * tokens / rates.forward, memory, disk)


def _rows(journey: JourneyConfig, name: str, config: SftConfig | RewardConfig) -> int:
    """Training rows, known when the journey splits them itself."""
    if config.data.max_rows:
        return config.data.max_rows
    if journey.split is None:
        return 1000
    part = journey.split.sft if name == "sft" else journey.split.preference
    return part * len(journey.split.sources) or 1000


def _reply_seconds(config: RepliesConfig, rates: _Rates) -> float:
    """Of one prompt; what a judge takes is not known."""
    if config.method == "own_rejected":
        return config.sampling.max_new_tokens / rates.decode
    response, whole = config.sampling.max_new_tokens, config.sampling.max_new_tokens + TYPICAL_PROMPT_TOKENS
    each = response / rates.decode + config.scored_by_model * whole / rates.forward
    return config.num_responses_per_prompt * each


def _ppo_seconds(config: PpoConfig, rates: _Rates) -> float:
    episodes = config.num_iterations * config.prompts_per_iteration
    response, whole = config.sampling.max_new_tokens, config.sampling.max_new_tokens + TYPICAL_PROMPT_TOKENS
    passes = 4 * whole / rates.forward + 2 * config.num_epochs * whole / rates.train
    mini_batches = config.num_iterations * config.num_epochs * config.prompts_per_iteration / config.mini_batch_size
    ptx = mini_batches * config.ptx_rows * TYPICAL_ROW_TOKENS / rates.train if config.ptx_coef else 0.0
    return episodes * (response / rates.decode + passes) + ptx


def _grpo_seconds(config: GrpoConfig, rates: _Rates) -> float:
    episodes = config.num_iterations * config.prompts_per_iteration * config.num_responses_per_prompt
    response, whole = config.sampling.max_new_tokens, config.sampling.max_new_tokens + TYPICAL_PROMPT_TOKENS
    passes = (2 + config.scored_by_model) * whole / rates.forward + config.num_epochs * whole / rates.train
    return episodes * (response / rates.decode + passes)


def _eval(journey: JourneyConfig, rates: _Rates, model: ModelFacts, num_policies: int) -> Estimate:
    assert journey.eval is not None
    split = journey.split
    rows = len(split.sources) * split.held_out if split else 128
    response = journey.eval.sampling.max_new_tokens
    each = 2 * rows * (response / rates.decode + (2 * TYPICAL_ROW_TOKENS + 2 * response) / rates.forward)
    return Estimate(num_policies * (8.0 + each), 3.0 * model.weight_bytes(2) + 1e9, 1e6)


def _trained_weights(config: SftConfig | PpoConfig, model: ModelFacts) -> float:
    if config.model.tuning == "full":
        return float(model.num_weights)
    return float(model.lora_weights_per_rank * config.model.lora.rank)


def _training_memory(config: SftConfig | PpoConfig, model: ModelFacts, runtime: Runtime) -> float:
    """Weights, masters with two moments and gradients, activations of one micro-batch, and the program itself."""
    tokens = pass_tokens(config.batch.micro_batch_tokens, runtime.device)
    recomputed = config.model.activation_checkpointing is True
    activations = tokens * model.activation_bytes_per_token * (0.15 if recomputed else 1.0)
    return model.weight_bytes(runtime.dtype.itemsize) + 16.0 * _trained_weights(config, model) + activations + 8e8
