"""Training on responses that the policy samples itself: ppo and grpo."""

from typing import Literal

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from fairlead.config.common import CheckpointConfig, MixedRowsConfig, SamplingConfig
from fairlead.config.health import GrpoHealthConfig, OnlineHealthConfig, PpoHealthConfig
from fairlead.config.section import Section
from fairlead.config.stages import StageConfig
from fairlead.config.terms import PATTERNED, REWARD_MODEL, Term, check_pattern, parse_term, short_name


class PromptsConfig(MixedRowsConfig):
    """Which prompts are answered."""

    long_prompts: Literal["reject", "cut"] = "reject"
    """Set prompts above `max_length` aside, or cut their last message at the last line end that fits (TL;DR, 2020)."""


class KlConfig(Section):
    """The penalty that holds the policy near the reference."""

    coef: float = Field(default=0.05, ge=0.0)
    """Weight of the KL estimate of a token, per nat."""
    where: Literal["reward", "loss"] = "reward"
    """Take it off the reward of each token, whose optimum is known with k1, or add it to the loss, as GRPO's paper."""
    estimator: Literal["k1", "k2", "k3"] = "k1"
    """k1 belongs in the reward (in the loss its mean gradient is 0), k2 or k3 in the loss; docs/algorithms/ppo.md."""

    @property
    def notes(self) -> list[str]:
        """What the user should know of a penalty whose optimum is not the known one."""
        if not self.coef or (self.estimator == "k1") == (self.where == "reward"):
            return []
        if self.where == "loss":
            what = "in the loss holds nothing, for its mean gradient is 0; k2 holds"
        else:
            what = "in the reward punishes what becomes rarer until it is gone; k1 holds"
        return [f"warning: kl.estimator={self.estimator} {what}"]


class PpoKlConfig(KlConfig):
    """The penalty that holds the policy near the reference."""

    controller: Literal["fixed", "adaptive"] = "fixed"
    """Keep the weight, or steer it to the target (Ziegler et al. 2019, section 2.2)."""
    target: PositiveFloat = 6.0
    """Sequence KL the adaptive controller aims at, nats per response."""
    horizon: PositiveFloat = 10_000.0
    """Episodes over which the adaptive controller acts."""


class OnlineConfig(StageConfig):
    """What ppo and grpo share."""

    data: PromptsConfig = PromptsConfig()
    """Prompts to answer."""
    checkpoint: CheckpointConfig = CheckpointConfig(every_steps=1)
    """Saving for resume; an iteration is long, so each is saved."""
    health: OnlineHealthConfig = OnlineHealthConfig()
    """What happens when the numbers go wrong."""
    reward_model: str = ""
    """Folder of a reward stage, whose score drives the policy."""
    probes: tuple[str, ...] = ()
    """Rewards that are only watched: exact_match, maths_answer, format, length, FILE.py:FUNCTION."""
    answer_pattern: str = ""
    """Regular expression whose first group is the answer in a response; for exact_match, maths_answer and format."""
    num_iterations: PositiveInt = 16
    """Rounds of sampling and learning."""
    prompts_per_iteration: PositiveInt = 32
    """Prompts per round, over all ranks."""
    num_epochs: PositiveInt = 1
    """Passes over each rollout."""
    mini_batch_size: PositiveInt = 16
    """Responses per optimizer step, over all ranks."""
    sampling: SamplingConfig = SamplingConfig(max_new_tokens=64)
    """How responses are drawn; only the temperature may reshape the distribution."""
    length_sampler_min_tokens: int = Field(default=0, ge=0)
    """Draw each response's limit evenly from this to sampling.max_new_tokens (StackLLaMA, 2023); 0 draws none."""
    kl: KlConfig = KlConfig()
    """KL penalty."""
    reference: Literal["frozen", "refreshed", "ema"] = "frozen"
    """What the KL is measured to: the model this stage began with, the policy of some rounds ago, or its average."""
    reference_every: PositiveInt = 4
    """Rounds between two copies of the policy into a refreshed reference."""
    reference_decay: float = Field(default=0.95, gt=0.0, lt=1.0)
    """Share that a reference of kind ema keeps in every round (Xu et al. 2024)."""
    policy_ema: float = Field(default=0.0, ge=0.0, lt=1.0)
    """Save the moving average of the policy, which keeps this share in every optimizer step; 0 saves the policy."""
    clip_eps_low: float = Field(default=0.2, gt=0.0, lt=1.0)
    """The ratio is clipped below 1 - this."""
    clip_eps_high: PositiveFloat = 0.2
    """The ratio is clipped above 1 + this; DAPO takes 0.28."""
    dual_clip: float = Field(default=0.0, ge=0.0)
    """Above 1, holds the loss of tokens with negative advantage at this many times it (Ye et al. 2020); 0 leaves it."""
    importance_cap: float = Field(default=0.0, ge=0.0)
    """Multiply each token's policy loss by trainer / sampler probability, at most this (Yao et al. 2025)."""

    @model_validator(mode="after")
    def _sound(self) -> "OnlineConfig":
        """What ppo and grpo refuse alike."""
        only_temperature(self.sampling)
        if self.model.lora.dropout > 0:
            raise ValueError(
                "model.lora.dropout must be 0: a policy with dropout is not the one that sampled, so every ratio would "
                "be off; set it to 0"
            )
        if self.dual_clip and self.dual_clip <= 1.0:
            raise ValueError("dual_clip must be above 1, or 0 for none; set it to 3")
        if self.length_sampler_min_tokens > self.sampling.max_new_tokens:
            raise ValueError("length_sampler_min_tokens is more than sampling.max_new_tokens; lower it")
        fields = type(self).model_fields
        if self.reference != "refreshed" and self.reference_every != fields["reference_every"].default:
            raise ValueError(f"reference_every has no meaning for reference={self.reference}; leave it out")
        if self.reference == "refreshed" and self.reference_every == 1 and self.kl.where == "reward":
            raise ValueError(
                "reference_every=1 makes the reference the policy that samples: the KL in the reward is always 0; set "
                "2 or more, or kl.where=loss"
            )
        if self.reference != "ema" and self.reference_decay != fields["reference_decay"].default:
            raise ValueError(f"reference_decay has no meaning for reference={self.reference}; leave it out")
        self._terms_are_sound()
        return self

    def _terms_are_sound(self) -> None:
        if any(term.name == REWARD_MODEL or term.weight != 1.0 for term in self.probe_terms):
            raise ValueError("probes are watched, not summed; name verifiers or FILE.py:FUNCTION, without a weight")
        if len({short_name(name) for name in self.term_names}) < len(self.term_names):
            raise ValueError("a reward or probe is named twice; write it once, with a weight, or rename the function")
        check_pattern(self.answer_pattern, self.term_names, "grpo" if isinstance(self, GrpoConfig) else "ppo")
        if self.answer_pattern and not set(self.term_names).intersection(PATTERNED):
            raise ValueError(
                "answer_pattern is for exact_match, maths_answer and format; name one of them or leave it out"
            )

    @property
    def longest_episode(self) -> int:
        """Tokens of a prompt with its response, at most."""
        return self.data.max_length + self.sampling.max_new_tokens

    @property
    def probe_terms(self) -> list[Term]:
        """What is only watched."""
        return [parse_term(text) for text in self.probes]

    @property
    def term_names(self) -> list[str]:
        """Names of all that is judged by rules."""
        return [term.name for term in self.probe_terms]


class PpoConfig(OnlineConfig):
    """Proximal policy optimisation (Schulman et al. 2017) against a reward model, with a critic and a KL penalty."""

    health: PpoHealthConfig = PpoHealthConfig()
    """What happens when the numbers go wrong."""
    reward_model: str = ""
    """Folder of a reward stage; its score drives the policy and its weights start the critic."""
    prompts_per_iteration: PositiveInt = 32
    """Prompts per round, over all ranks, one response each."""
    num_epochs: PositiveInt = 2
    """Passes over each rollout."""
    sampling: SamplingConfig = SamplingConfig(max_new_tokens=48)
    """How responses are drawn; only the temperature may reshape the distribution."""
    kl: PpoKlConfig = PpoKlConfig()
    """KL penalty."""
    gamma: float = Field(default=1.0, ge=0.0, le=1.0)
    """Discount per token."""
    lam: float = Field(default=0.95, ge=0.0, le=1.0)
    """Lambda of generalised advantage estimation (Schulman et al. 2016)."""
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
        if self.critic_head == "reward_model" and self.normalise_scores:
            raise ValueError(
                "ppo.critic_head=reward_model starts with values in the reward model's own scores, but "
                "ppo.normalise_scores shifts and scales them; set normalise_scores=false or critic_head=zero"
            )
        if self.ptx_coef > 0 and not self.ptx_data:
            raise ValueError("ppo.ptx_coef is set without ppo.ptx_data; name conversation files or set ptx_coef=0")
        if self.length_sampler_min_tokens and self.missing_end_token_penalty:
            raise ValueError(
                "ppo.missing_end_token_penalty would punish responses that length_sampler_min_tokens cut short; set "
                "one of them to 0"
            )
        return self


class GrpoConfig(OnlineConfig):
    """Group-relative policy optimisation (Shao et al. 2024) and its relatives: responses judged against each other."""

    health: GrpoHealthConfig = GrpoHealthConfig()
    """What happens when the numbers go wrong."""
    reward_model: str = ""
    """Folder of a reward stage, for the reward of that name."""
    prompts_per_iteration: PositiveInt = 8
    """Prompts per round, over all ranks."""
    mini_batch_size: PositiveInt = 64
    """Responses per optimizer step, over all ranks."""
    kl: KlConfig = KlConfig(coef=0.04)
    """KL penalty."""
    rewards: tuple[str, ...] = ("reward_model",)
    """Summed: reward_model, exact_match, maths_answer, format, length, FILE.py:FUNCTION; WEIGHT*NAME weighs one."""
    num_responses_per_prompt: int = Field(default=8, ge=2)
    """Responses to each prompt: the group that a response is compared with."""
    dynamic_sampling_rounds: int = Field(default=0, ge=0)
    """Answer other prompts in place of groups that score alike, at most so many times a round (DAPO, eq. 11)."""
    advantage: Literal["group", "leave_one_out", "batch"] = "group"
    """Score against its group's mean (GRPO), the others' mean (RLOO), or the whole batch's (REINFORCE++)."""
    divide_by_std: bool = True
    """Divide a group's advantages by its standard deviation (GRPO); false is Dr. GRPO. Only for advantage=group."""
    aggregation: Literal["token_mean", "response_mean", "constant"] = "token_mean"
    """What a token weighs in the loss of a step: DAPO's, GRPO's, Dr. GRPO's choice."""
    overlong_soft_tokens: int = Field(default=0, ge=0)
    """Take up to 1 from the reward of a response in the last so many tokens before the limit (DAPO, eq. 13)."""

    @property
    def scored_by_model(self) -> bool:
        """Whether a reward model is one of the rewards."""
        return any(term.name == REWARD_MODEL for term in self.reward_terms)

    @property
    def reward_terms(self) -> list[Term]:
        """What is summed to the score of a response."""
        return [parse_term(text) for text in self.rewards]

    @property
    def term_names(self) -> list[str]:
        """Names of all rewards and probes."""
        return [term.name for term in (*self.reward_terms, *self.probe_terms)]

    @model_validator(mode="after")
    def _consistent(self) -> "GrpoConfig":
        if not self.rewards:
            raise ValueError("grpo.rewards is empty; name at least one")
        if self.reward_model and not self.scored_by_model:
            raise ValueError("grpo.reward_model is not one of grpo.rewards; add reward_model there, or leave it out")
        responses = self.prompts_per_iteration * self.num_responses_per_prompt
        if responses % self.mini_batch_size:
            raise ValueError(
                f"grpo.mini_batch_size={self.mini_batch_size} does not divide the {responses} responses of a round "
                f"({self.prompts_per_iteration} prompts x {self.num_responses_per_prompt}); choose a divisor"
            )
        if not self.divide_by_std and self.advantage != "group":
            raise ValueError(f"grpo.divide_by_std has no meaning for grpo.advantage={self.advantage}; leave it out")
        if self.overlong_soft_tokens > self.sampling.max_new_tokens:
            raise ValueError("grpo.overlong_soft_tokens is more than a response may have; lower it")
        if self.length_sampler_min_tokens and self.overlong_soft_tokens:
            raise ValueError("grpo.overlong_soft_tokens needs one limit for all; set length_sampler_min_tokens to 0")
        return self


def only_temperature(sampling: SamplingConfig) -> None:
    """ValueError for sampling whose distribution is not the one that ratios and KL are measured on."""
    s = sampling
    if s.temperature == 0 or s.top_k or s.top_p < 1 or s.min_p or s.repetition_penalty != 1 or s.stop:
        raise ValueError(
            "sampling may only set max_new_tokens and a temperature above 0: any other option samples from a "
            "distribution whose KL is not the one measured; set temperature above 0 and remove top_k, top_p, min_p, "
            "repetition_penalty and stop"
        )
