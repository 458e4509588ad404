"""One configuration per training stage and for evaluation."""

from typing import Literal

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from fairlead.config.common import (
    BatchConfig,
    CheckpointConfig,
    DataConfig,
    ForwardConfig,
    MicroBatchConfig,
    MixedRowsConfig,
    ModelConfig,
    OptimConfig,
    RuntimeConfig,
    SamplingConfig,
    SinkConfig,
)
from fairlead.config.health import HealthConfig
from fairlead.config.section import Section
from fairlead.config.terms import Verifier, check_pattern


class StageConfig(Section):
    """What every training stage has."""

    output: str = "runs/default"
    """Folder of the run; the stage writes into a folder of its own inside."""
    model: ModelConfig = ModelConfig()
    """Weights to start from."""
    data: MixedRowsConfig = MixedRowsConfig()
    """Rows to train on."""
    batch: MicroBatchConfig = MicroBatchConfig()
    """How a step is cut."""
    optim: OptimConfig = OptimConfig()
    """Optimizer and schedule."""
    checkpoint: CheckpointConfig = CheckpointConfig()
    """Saving for resume."""
    runtime: RuntimeConfig = RuntimeConfig()
    """Devices, precision, seed."""
    metrics: SinkConfig = SinkConfig()
    """Metric sinks."""
    health: HealthConfig = HealthConfig()
    """What happens when the numbers go wrong."""


class EpochsConfig(StageConfig):
    """A stage that passes over its rows."""

    data: DataConfig = DataConfig()
    """Rows to train on and to hold out."""
    batch: BatchConfig = BatchConfig()
    """Size of a step."""
    num_epochs: PositiveInt = 2
    """Passes over the training rows."""
    max_steps: int = Field(default=0, ge=0)
    """Stop after this many optimizer steps; 0 runs all epochs."""
    eval_every_steps: int = Field(default=0, ge=0)
    """Optimizer steps between two measurements on held-out rows; 0 measures only at the end."""


class SftConfig(EpochsConfig):
    """Supervised fine-tuning on conversations: all assistant turns and their end tokens."""

    label_smoothing: float = Field(default=0.0, ge=0.0, lt=1.0)
    """Weight of the uniform distribution in each target; 0 trains on the token alone."""
    z_coef: float = Field(default=0.0, ge=0.0)
    """Weight of the squared log of the softmax normaliser (PaLM, 2022: 1e-4); 0 leaves it out."""
    neftune_alpha: float = Field(default=0.0, ge=0.0)
    """Uniform noise on the embeddings in training, times this over sqrt(tokens x width) (NEFTune: 5); 0 adds none."""
    loss_per: Literal["token", "turn"] = "token"
    """What counts the same: every trained token, or every assistant turn however long it is."""


class RewardConfig(EpochsConfig):
    """Reward model from ranked or graded responses (Ouyang et al. 2022, eq. 1); a row is a prompt with all of its."""

    loss: Literal["log_sig", "log_exp", "regression"] = "log_sig"
    """-log sigmoid(chosen - rejected); log(1 + exp(rejected - chosen)), its equal; squared error from given scores."""
    margin: float = Field(default=0.0, ge=0.0)
    """How much higher the chosen response shall score (Touvron et al. 2023, eq. 2)."""
    margin_per_score: float = Field(default=0.0, ge=0.0)
    """Added to a pair's margin: this times the difference of the rows' own scores, in their standard deviations."""
    centring_coef: float = Field(default=0.0, ge=0.0)
    """Weight of the square of a pair's summed scores, which draws their mean to 0 (Eisenstein et al. 2023)."""
    score_at: Literal["end_token", "last_token"] = "end_token"
    """Read the score at the end token appended to the response, or at the response's own last token."""
    normalise_head: bool = False
    """Start with scores of mean 0, variance 1 (Ziegler et al. 2019); off: a pair's loss sees their difference alone."""

    @property
    def needs_grades(self) -> bool:
        """Whether rows without scores of their own teach nothing."""
        return self.loss == "regression" or self.margin_per_score > 0

    @model_validator(mode="after")
    def _has_effect(self) -> "RewardConfig":
        idle = [name for name in ("margin", "margin_per_score", "centring_coef") if getattr(self, name)]
        if self.loss == "regression" and idle:
            raise ValueError(f"reward.{idle[0]} has no meaning for reward.loss=regression; set it to 0")
        return self


class DpoConfig(EpochsConfig):
    """Direct preference optimisation (Rafailov et al. 2023, eq. 7), and the losses that followed it."""

    loss: Literal["sigmoid", "robust", "ipo", "hinge", "simpo", "odds_ratio"] = "sigmoid"
    """DPO's own; unbiased under flipped labels; IPO; SLiC's hinge; and two without a reference: SimPO, ORPO's term."""
    beta: PositiveFloat = 0.1
    """Strength of the pull to the reference; simpo: scale of the margin; odds_ratio: weight of the term (lambda)."""
    label_smoothing: float = Field(default=0.0, ge=0.0, lt=0.5)
    """Probability that a label is flipped; for sigmoid (conservative DPO) and robust."""
    length_normalised: bool = False
    """Take mean log-probabilities per token instead of sums; simpo and odds_ratio always do."""
    simpo_margin: float = Field(default=1.0, ge=0.0)
    """How much simpo wants the chosen response ahead, after beta (its gamma)."""
    sft_coef: float = Field(default=0.0, ge=0.0)
    """Weight of the SFT loss of the chosen responses (RPO, Pang et al. 2024); 1 beside odds_ratio makes ORPO."""
    add_end_token: bool = True
    """Append the end token to both responses."""

    @property
    def with_reference(self) -> bool:
        """Whether the loss compares with the frozen parent."""
        return self.loss not in ("simpo", "odds_ratio")

    @model_validator(mode="after")
    def _has_effect(self) -> "DpoConfig":
        if self.label_smoothing and self.loss not in ("sigmoid", "robust"):
            raise ValueError(f"dpo.label_smoothing has no meaning for dpo.loss={self.loss}; set it to 0")
        if self.simpo_margin != type(self).model_fields["simpo_margin"].default and self.loss != "simpo":
            raise ValueError(f"dpo.simpo_margin has no meaning for dpo.loss={self.loss}; leave it out")
        if self.loss == "odds_ratio" and not self.sft_coef:
            raise ValueError("dpo.loss=odds_ratio alone forgets the language; set dpo.sft_coef=1, as ORPO does")
        return self


class KtoConfig(EpochsConfig):
    """Kahneman-Tversky optimisation (Ethayarajh et al. 2024): responses that are desirable or not, without pairs."""

    beta: PositiveFloat = 0.1
    """Strength of the pull to the reference: the reward of a response is beta times its log-ratio to it."""
    desirable_weight: PositiveFloat = 1.0
    """Weight of the loss of a desirable response."""
    undesirable_weight: PositiveFloat = 1.0
    """Weight of the loss of an undesirable response."""
    add_end_token: bool = True
    """Append the end token to every response."""


class EvalConfig(Section):
    """Measuring one model, beside its parent when there is one."""

    model: str = ""
    """Stage artifact, folder, hub id or starter name to measure."""
    parent: str = ""
    """Model to compare with; empty takes the artifact's own parent."""
    reward_model: str = ""
    """Reward stage that scores answers and pairs; empty leaves those figures out."""
    conversations: tuple[str, ...] = ()
    """Held-out conversations: loss and perplexity per trained token, by file."""
    preferences: tuple[str, ...] = ()
    """Held-out preference pairs: accuracy of the reward model, or of the policy's log-probabilities."""
    prompts: tuple[str, ...] = ()
    """Prompts (or conversations whose last answer is dropped) to answer, one answer each."""
    verifiers: tuple[Verifier, ...] = ()
    """Rules that find each answer right or wrong, beside the answer that the prompt's row holds."""
    answer_pattern: str = ""
    """Regular expression whose first group is the answer in a response; for the verifiers."""
    max_prompts: int = Field(default=0, ge=0)
    """Answer only the first prompts; 0 answers all."""
    max_pairs: int = Field(default=0, ge=0)
    """Score only the first pairs of each file; 0 scores all."""
    max_length: PositiveInt = 512
    """Longest sequence, in tokens."""
    sampling: SamplingConfig = SamplingConfig(max_new_tokens=64)
    """How answers are drawn."""
    batch: ForwardConfig = ForwardConfig()
    """Size of a forward pass."""
    runtime: RuntimeConfig = RuntimeConfig()
    """Devices, precision, seed."""
    output: str = ""
    """Folder of the run; the report goes into a folder of its own inside. Empty: the run that the model lies in."""

    @model_validator(mode="after")
    def _has_effect(self) -> "EvalConfig":
        if self.verifiers and not self.prompts:
            raise ValueError("eval.verifiers judge answers, and there is nothing to answer; name eval.prompts")
        if len(set(self.verifiers)) < len(self.verifiers):
            raise ValueError("eval.verifiers names one twice; write it once")
        if self.answer_pattern and not self.verifiers:
            raise ValueError("eval.answer_pattern has no meaning without eval.verifiers; leave it out")
        check_pattern(self.answer_pattern, self.verifiers, "eval")
        return self
