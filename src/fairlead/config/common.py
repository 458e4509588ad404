"""Sections that several stages share: model, data, batch, optimizer, checkpoints, runtime, sampling."""

from typing import Any, Literal, Self

from pydantic import Field, PositiveFloat, PositiveInt, field_validator, model_validator

from fairlead.config.section import Section

RowKind = Literal["conversations", "preferences", "judgements", "prompts"]
"""What the rows that a stage reads must hold."""


class LoraConfig(Section):
    """Low-rank adapters (Hu et al. 2021), in PEFT's format."""

    rank: PositiveInt = 16
    """Rank of the two factors of each adapted layer."""
    alpha: PositiveInt = 32
    """The adapter's output is scaled by alpha / rank."""
    dropout: float = Field(default=0.0, ge=0.0, lt=1.0)
    """Dropout before the adapter, as a probability. 0 keeps a policy and its sampler equal."""


class ModelConfig(Section):
    """Which weights to start from and how to train them."""

    name: str = "smollm2-135m-instruct"
    """A starter name, a folder (model or stage artifact), or a hub id."""
    revision: str | None = None
    """Commit, tag or branch of a hub id; the commit it resolves to is pinned in the manifest."""
    tuning: Literal["lora", "full"] = "lora"
    """Train adapters on a frozen base, or every weight."""
    lora: LoraConfig = LoraConfig()
    """Shape of the adapters; used when tuning is lora."""
    activation_checkpointing: bool | Literal["auto"] = "auto"
    """Recompute each layer in the backward pass: less memory, a third more time. auto: where memory asks for it."""


FatalFinding = Literal[
    "contamination", "end-token-trained", "special-tokens-in-text", "template-round-trip", "trained-is-the-answers",
    "training-reads-as-chatting", "truncated-answers",
]  # fmt: skip
"""Checks of `fairlead data audit` whose fatal verdict stops a training that does not accept it."""


class FilesConfig(Section):
    """How files of rows are read."""

    columns: tuple[str, ...] = ()
    """OURS=YOURS: the columns of your files by the names of a known layout, such as instruction=question."""
    encoding: str = ""
    """Encoding of files that are not UTF-8, such as gb18030 or big5; empty refuses those and names a guess."""
    max_reject_rate: float = Field(default=0.01, ge=0.0, le=1.0)
    """Share of unusable rows above which the run stops."""

    @field_validator("columns")
    @classmethod
    def _pairs(cls, entries: tuple[str, ...]) -> tuple[str, ...]:
        for entry in entries:
            if not all(entry.partition("=")[::2]):
                raise ValueError(f"{entry!r} is no pair; write OURS=YOURS")
        ours = [entry.partition("=")[0] for entry in entries]
        if twice := next((name for name in ours if ours.count(name) > 1), None):
            raise ValueError(f"{twice} is named twice, and one column would be lost; leave one out")
        return entries

    @property
    def reading(self) -> dict[str, Any]:
        """These options as the readers of data/load.py take them."""
        columns = {entry.partition("=")[0]: entry.partition("=")[2] for entry in self.columns}
        return {"columns": columns, "encoding": self.encoding or None, "max_reject_rate": self.max_reject_rate}


class RowsConfig(FilesConfig):
    """Which rows a stage trains on."""

    train: tuple[str, ...] = ()
    """Files or folders of rows in any layout, a starter dataset's name, or a hub's: hf://datasets/OWNER/NAME."""
    max_rows: int = Field(default=0, ge=0)
    """Use only the first rows of the training files; 0 uses all."""
    max_length: PositiveInt = 512
    """Longest sequence, in tokens; longer ones are cut at the end."""


class MixedRowsConfig(RowsConfig):
    """Which rows a stage trains on, and how much of each file."""

    against: tuple[str, ...] = ()
    """Files or folders of evaluation questions; a row that holds one whole stops the run before it trains."""
    accept: tuple[FatalFinding, ...] = ()
    """Fatal findings of the audit to train on all the same, by name; each is told as a warning."""
    weights: tuple[PositiveFloat, ...] = ()
    """How much of every epoch each entry of `train` gives, relative to the others; none: every row once."""

    @model_validator(mode="after")
    def _one_weight_each(self) -> Self:
        if self.weights and len(self.weights) != len(self.train):
            raise ValueError(
                f"data.weights has {len(self.weights)} numbers for the {len(self.train)} entries of data.train; "
                "give one each, or none"
            )
        return self


class DataConfig(MixedRowsConfig):
    """Which rows a stage trains on and holds out."""

    held_out: tuple[str, ...] = ()
    """Files of rows to measure on, never trained on. Empty: `held_out_rows` are split off by prompt."""
    held_out_rows: int = Field(default=64, ge=0)
    """Rows to split off, by prompt, when no held-out file is given; at most a fifth of all rows."""


class ForwardConfig(Section):
    """How much one forward pass holds."""

    micro_batch_tokens: int = Field(default=0, ge=0)
    """Tokens in one forward pass, 0 for what is fast on the device and fits. Memory only: the result is the same."""


class MicroBatchConfig(ForwardConfig):
    """How an optimizer step is cut."""

    num_micro_batches: int = Field(default=0, ge=0)
    """Cut each step into exactly this many micro-batches over all ranks; 0 lets the tokens decide."""


class BatchConfig(MicroBatchConfig):
    """How many rows one optimizer step sees, and how it is cut."""

    rows: PositiveInt = 16
    """Rows (conversations, pairs, or in reward prompts with all responses) per optimizer step, over all ranks."""


class OptimConfig(Section):
    """AdamW (Loshchilov & Hutter 2019) with fp32 master weights, and its learning-rate schedule."""

    lr: float = Field(default=2e-4, gt=0.0, le=1.0)
    """Peak learning rate."""
    schedule: Literal["constant", "linear", "cosine"] = "cosine"
    """How the rate falls to zero after warm-up; constant keeps it."""
    warmup_steps: int = Field(default=0, ge=0)
    """Optimizer steps in which the rate rises linearly from zero."""
    weight_decay: float = Field(default=0.0, ge=0.0)
    """Decoupled weight decay per step, times the rate."""
    beta1: float = Field(default=0.9, ge=0.0, lt=1.0)
    """Decay of the first moment."""
    beta2: float = Field(default=0.999, ge=0.0, lt=1.0)
    """Decay of the second moment."""
    eps: PositiveFloat = 1e-8
    """Added to the square root of the second moment (outside the root)."""
    eps_placement: Literal["torch", "tensorflow"] = "torch"
    """Add eps after the second moment's bias is corrected, or before it, which damps the first steps (Ziegler 2019)."""
    max_grad_norm: float = Field(default=1.0, ge=0.0)
    """Gradients with a larger global L2 norm are scaled down to it; 0 leaves them."""


class CheckpointConfig(Section):
    """When the state is saved for resuming."""

    every_steps: PositiveInt = 20
    """Optimizer steps (iterations for ppo) between two checkpoints."""
    keep: int = Field(default=2, ge=2)
    """Checkpoints kept on disk; the older ones are deleted after a newer one is safe."""


class RuntimeConfig(Section):
    """The machine: devices, precision, threads, seed, distribution."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where tensors live; auto takes a GPU when there is one."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Precision of compute; auto takes bfloat16 where the hardware multiplies it natively. Master weights are fp32."""
    num_threads: int = Field(default=0, ge=0)
    """CPU threads of each process; 0 takes OMP_NUM_THREADS or the cores this process may use, shared by the ranks."""
    seed: int = Field(default=42, ge=0, lt=2**31)
    """Fixes every random choice together with the data."""
    distributed: Literal["replicated", "fsdp"] = "replicated"
    """Under torchrun: a full copy of the weights per rank, or weights sharded by FSDP2."""
    fast: bool = True
    """False selects the slow reference twin of every fast path (padded rows, no packing; no key-value cache)."""


class SamplingConfig(Section):
    """How responses are drawn."""

    max_new_tokens: PositiveInt = 256
    """Longest response, in tokens."""
    temperature: float = Field(default=1.0, ge=0.0, le=10.0)
    """Divides the logits; 0 takes the most likely token."""
    top_k: int = Field(default=0, ge=0)
    """Keep the k most likely tokens; 0 keeps all."""
    top_p: float = Field(default=1.0, gt=0.0, le=1.0)
    """Keep the smallest set of tokens with at least this probability."""
    min_p: float = Field(default=0.0, ge=0.0, le=1.0)
    """Keep tokens with at least this share of the most likely token's probability."""
    repetition_penalty: float = Field(default=1.0, gt=0.0)
    """Divide positive logits of tokens seen in prompt or response by this, multiply negative ones (CTRL, 2019)."""
    stop: tuple[str, ...] = ()
    """Strings that end a response besides the model's end tokens."""


class SinkConfig(Section):
    """Where metrics go besides metrics.jsonl and timings.jsonl."""

    sinks: tuple[Literal["tensorboard", "trackio", "wandb"], ...] = ()
    """Optional trackers, each an extra of the package."""
    every_steps: PositiveInt = 1
    """Optimizer steps between two reports to the trackers; metrics.jsonl always has every step."""
