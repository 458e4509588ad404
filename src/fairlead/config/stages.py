"""One configuration per training stage and for evaluation."""

import re
from collections.abc import Sequence
from typing import Literal

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from fairlead.config.common import (
    BatchConfig,
    CheckpointConfig,
    DataConfig,
    ForwardConfig,
    MicroBatchConfig,
    ModelConfig,
    OptimConfig,
    RowsConfig,
    RuntimeConfig,
    SamplingConfig,
    SinkConfig,
)
from fairlead.config.section import Section
from fairlead.config.terms import REWARD_MODEL, Verifier, parse_term


class StageConfig(Section):
    """What every training stage has."""

    output: str = "runs/default"
    """Folder of the run; the stage writes into a folder of its own inside."""
    model: ModelConfig = ModelConfig()
    """Weights to start from."""
    data: RowsConfig = RowsConfig()
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
    """Reward model from preference pairs (Ouyang et al. 2022, eq. 1)."""

    loss: Literal["log_sig", "log_exp"] = "log_sig"
    """-log sigmoid(chosen - rejected), or log(1 + exp(rejected - chosen)); equal in value, both stable."""
    margin: float = Field(default=0.0, ge=0.0)
    """How much higher the chosen response shall score (Touvron et al. 2023, eq. 2)."""
    centring_coef: float = Field(default=0.0, ge=0.0)
    """Weight of the square of a pair's summed scores, which draws their mean to 0 (Eisenstein et al. 2023)."""
    score_at: Literal["end_token", "last_token"] = "end_token"
    """Read the score at the end token appended to the response, or at the response's own last token."""


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


class KlConfig(Section):
    """The penalty that holds the policy near the reference."""

    coef: float = Field(default=0.05, ge=0.0)
    """Weight of the per-token KL estimate in the reward, per nat."""
    controller: Literal["fixed", "adaptive"] = "fixed"
    """Keep the weight, or steer it to the target (Ziegler et al. 2019, section 2.2)."""
    target: PositiveFloat = 6.0
    """Sequence KL the adaptive controller aims at, nats per response."""
    horizon: PositiveFloat = 10_000.0
    """Episodes over which the adaptive controller acts."""


class PpoConfig(StageConfig):
    """Proximal policy optimisation (Schulman et al. 2017) against a reward model, with a critic and a KL penalty."""

    checkpoint: CheckpointConfig = CheckpointConfig(every_steps=1)
    """Saving for resume; an iteration is long, so each is saved."""
    reward_model: str = ""
    """Folder of a reward stage; its score drives the policy and its weights start the critic."""
    num_iterations: PositiveInt = 16
    """Rounds of sampling and learning."""
    prompts_per_iteration: PositiveInt = 32
    """Prompts per round, over all ranks, one response each."""
    num_epochs: PositiveInt = 2
    """Passes over each rollout."""
    mini_batch_size: PositiveInt = 16
    """Responses per optimizer step, over all ranks."""
    sampling: SamplingConfig = SamplingConfig(max_new_tokens=48)
    """How responses are drawn; only the temperature may reshape the distribution."""
    kl: KlConfig = KlConfig()
    """KL penalty."""
    gamma: float = Field(default=1.0, ge=0.0, le=1.0)
    """Discount per token."""
    lam: float = Field(default=0.95, ge=0.0, le=1.0)
    """Lambda of generalised advantage estimation (Schulman et al. 2016)."""
    clip_eps_low: float = Field(default=0.2, gt=0.0, lt=1.0)
    """The ratio is clipped below 1 - this."""
    clip_eps_high: PositiveFloat = 0.2
    """The ratio is clipped above 1 + this."""
    dual_clip: float = Field(default=0.0, ge=0.0)
    """Above 1, holds the loss of tokens with negative advantage at this many times it (Ye et al. 2020); 0 leaves it."""
    importance_cap: float = Field(default=0.0, ge=0.0)
    """Multiply each token's policy loss by trainer / sampler probability, at most this (Yao et al. 2025)."""
    value_clip: PositiveFloat = 0.4
    """New values are clipped to the old ones plus or minus this."""
    whiten_rewards: bool = False
    """Scale token rewards to variance 1 over the rollout, mean kept (Ziegler et al. 2019); off: scores are normal."""
    whiten_advantages: bool = True
    """Shift and scale advantages to mean 0, variance 1 over all response tokens of a rollout."""
    normalise_scores: bool = True
    """Shift and scale scores to mean 0, variance 1 over the reward model's held-out pairs (Stiennon et al. 2020)."""
    score_clip: float = Field(default=0.0, ge=0.0)
    """Scores, normalised if they are, are clipped to plus or minus this; 0 leaves them."""
    reward_baseline: float = 0.0
    """Taken from every score after normalising (StackLLaMA, 2023); it moves what the critic has to learn."""
    missing_end_token_penalty: float = Field(default=0.0, ge=0.0)
    """Taken from the score of a response that did not end by itself."""
    ptx_coef: float = Field(default=0.0, ge=0.0)
    """Weight of the SFT loss mixed into each policy step (Ouyang et al. 2022, eq. 2)."""
    ptx_data: tuple[str, ...] = ()
    """Conversations for the PTX term."""
    ptx_rows: PositiveInt = 8
    """Conversations per policy step for the PTX term, over all ranks."""
    critic_head: Literal["zero", "reward_model"] = "zero"
    """Start the critic's head at zero (Ziegler et al. 2019), or at the reward model's, with normalise_scores=false."""
    critic_lr: float = Field(default=0.0, ge=0.0, le=1.0)
    """Peak learning rate of the critic; 0 takes optim.lr."""

    @model_validator(mode="after")
    def _consistent(self) -> "PpoConfig":
        if self.prompts_per_iteration % self.mini_batch_size:
            raise ValueError(
                f"ppo.mini_batch_size={self.mini_batch_size} does not divide "
                f"ppo.prompts_per_iteration={self.prompts_per_iteration}; choose a divisor"
            )
        only_temperature(self.sampling, "ppo")
        if self.critic_head == "reward_model" and self.normalise_scores:
            raise ValueError(
                "ppo.critic_head=reward_model starts with values in the reward model's own scores, but "
                "ppo.normalise_scores shifts and scales them; set normalise_scores=false or critic_head=zero"
            )
        if self.model.lora.dropout > 0:
            raise ValueError(
                "ppo.model.lora.dropout must be 0: a policy with dropout is not the one that sampled, so every ratio "
                "would be off; set it to 0"
            )
        if self.dual_clip and self.dual_clip <= 1.0:
            raise ValueError("ppo.dual_clip must be above 1, or 0 for none; set it to 3")
        if self.ptx_coef > 0 and not self.ptx_data:
            raise ValueError("ppo.ptx_coef is set without ppo.ptx_data; name conversation files or set ptx_coef=0")
        return self


class GroupKlConfig(Section):
    """The penalty that holds the policy near the reference."""

    coef: float = Field(default=0.04, ge=0.0)
    """Weight of the KL estimate, per nat."""
    where: Literal["reward", "loss"] = "reward"
    """Take it off the reward of each token, whose optimum is known, or add it to the loss, as GRPO's paper does."""
    estimator: Literal["k1", "k2", "k3"] = "k1"
    """Estimator of the KL in the loss: k2 pulls as the exact KL does, k3 as the reverse one. In the reward it is k1."""

    @model_validator(mode="after")
    def _fits(self) -> "GroupKlConfig":
        if self.where == "reward" and self.estimator != "k1":
            raise ValueError("kl.estimator is for kl.where=loss; in the reward the KL is estimated by k1; set it to k1")
        if self.where == "loss" and self.estimator == "k1":
            raise ValueError("kl.estimator=k1 in the loss holds nothing: its mean gradient is 0; choose k2 or k3")
        return self


class GrpoConfig(StageConfig):
    """Group-relative policy optimisation (Shao et al. 2024) and its relatives: responses judged against each other."""

    checkpoint: CheckpointConfig = CheckpointConfig(every_steps=1)
    """Saving for resume; an iteration is long, so each is saved."""
    rewards: tuple[str, ...] = ("reward_model",)
    """Summed: reward_model, exact_match, maths_answer, format, length, FILE.py:FUNCTION; WEIGHT*NAME weighs one."""
    reward_model: str = ""
    """Folder of a reward stage, for the reward of that name."""
    answer_pattern: str = ""
    """Regular expression whose first group is the answer in a response; for exact_match, maths_answer and format."""
    num_iterations: PositiveInt = 16
    """Rounds of sampling and learning."""
    prompts_per_iteration: PositiveInt = 8
    """Prompts per round, over all ranks."""
    num_responses_per_prompt: int = Field(default=8, ge=2)
    """Responses to each prompt: the group that a response is compared with."""
    num_epochs: PositiveInt = 1
    """Passes over each rollout."""
    mini_batch_size: PositiveInt = 64
    """Responses per optimizer step, over all ranks."""
    sampling: SamplingConfig = SamplingConfig(max_new_tokens=64)
    """How responses are drawn; only the temperature may reshape the distribution."""
    kl: GroupKlConfig = GroupKlConfig()
    """KL penalty."""
    advantage: Literal["group", "leave_one_out", "batch"] = "group"
    """Score against its group's mean (GRPO), the others' mean (RLOO), or the whole batch's (REINFORCE++)."""
    divide_by_std: bool = True
    """Divide a group's advantages by its standard deviation (GRPO); false is Dr. GRPO. Only for advantage=group."""
    aggregation: Literal["token_mean", "response_mean", "constant"] = "token_mean"
    """What a token weighs in the loss of a step: DAPO's, GRPO's, Dr. GRPO's choice."""
    clip_eps_low: float = Field(default=0.2, gt=0.0, lt=1.0)
    """The ratio is clipped below 1 - this."""
    clip_eps_high: PositiveFloat = 0.2
    """The ratio is clipped above 1 + this; DAPO takes 0.28."""
    dual_clip: float = Field(default=0.0, ge=0.0)
    """Above 1, holds the loss of tokens with negative advantage at this many times it (Ye et al. 2020); 0 leaves it."""
    importance_cap: float = Field(default=0.0, ge=0.0)
    """Multiply each token's loss by trainer / sampler probability, at most this (Yao et al. 2025); 0 leaves it."""
    overlong_soft_tokens: int = Field(default=0, ge=0)
    """Take up to 1 from the reward of a response in the last so many tokens before the limit (DAPO, eq. 13)."""

    @property
    def scored_by_model(self) -> bool:
        """Whether a reward model is one of the rewards."""
        return any(parse_term(text).name == REWARD_MODEL for text in self.rewards)

    @model_validator(mode="after")
    def _consistent(self) -> "GrpoConfig":
        names = [parse_term(text).name for text in self.rewards]
        if not names:
            raise ValueError("grpo.rewards is empty; name at least one")
        if len(set(names)) < len(names):
            raise ValueError("grpo.rewards names one reward twice; write it once, with a weight")
        responses = self.prompts_per_iteration * self.num_responses_per_prompt
        if responses % self.mini_batch_size:
            raise ValueError(
                f"grpo.mini_batch_size={self.mini_batch_size} does not divide the {responses} responses of a round "
                f"({self.prompts_per_iteration} prompts x {self.num_responses_per_prompt}); choose a divisor"
            )
        only_temperature(self.sampling, "grpo")
        if self.model.lora.dropout > 0:
            raise ValueError("grpo.model.lora.dropout must be 0, as for ppo; set it to 0")
        _check_pattern(self.answer_pattern, names, "grpo", "rewards")
        if not self.divide_by_std and self.advantage != "group":
            raise ValueError(f"grpo.divide_by_std has no meaning for grpo.advantage={self.advantage}; leave it out")
        if self.dual_clip and self.dual_clip <= 1.0:
            raise ValueError("grpo.dual_clip must be above 1, or 0 for none; set it to 3")
        if self.overlong_soft_tokens > self.sampling.max_new_tokens:
            raise ValueError("grpo.overlong_soft_tokens is more than a response may have; lower it")
        return self


def only_temperature(sampling: SamplingConfig, verb: str) -> None:
    """ValueError for sampling whose distribution is not the one that ratios and KL are measured on."""
    s = sampling
    if s.temperature == 0 or s.top_k or s.top_p < 1 or s.min_p or s.repetition_penalty != 1 or s.stop:
        raise ValueError(
            f"{verb}.sampling may only set max_new_tokens and a temperature above 0: any other option samples from a "
            "distribution whose KL is not the one measured; remove top_k, top_p, min_p, repetition_penalty, stop"
        )


def _check_pattern(pattern: str, rules: Sequence[str], verb: str, option: str) -> None:
    """ValueError for an answer pattern that cannot be read, or is missing where `rules` (of `option`) needs one."""
    try:
        re.compile(pattern)
    except re.error as error:
        raise ValueError(f"{verb}.answer_pattern is no regular expression ({error}); mend it") from None
    if "format" in rules and not pattern:
        raise ValueError(f"{verb}.{option} has format, but no format is given; set {verb}.answer_pattern")


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
        _check_pattern(self.answer_pattern, self.verifiers, "eval", "verifiers")
        return self
