"""What a stage does when its own numbers say that something is wrong."""

from typing import Literal

from pydantic import Field, PositiveInt

from fairlead.config.section import Section

Action = Literal["off", "warn", "stop", "roll_back"]
"""Say nothing; say it once; end the stage; or go back to the last good checkpoint with a smaller step."""


class HealthConfig(Section):
    """Faults that every stage may have."""

    non_finite: Literal["stop", "roll_back"] = "stop"
    """A loss, gradient or metric that is not a finite number."""
    step_factor: float = Field(default=0.5, gt=0.0, lt=1.0)
    """What a roll-back multiplies every learning rate by."""
    max_roll_backs: PositiveInt = 3
    """Roll-backs of a stage; the next fault that asks for one stops it."""


class OnlineHealthConfig(HealthConfig):
    """Faults of a policy that learns from its own responses; docs/metrics.md says how each is recognised."""

    negative_kl: Action = "warn"
    """A clearly negative KL: the responses were not drawn from the policy that is measured."""
    ratio_explosion: Action = "warn"
    """One update moved the policy far from the one that sampled."""
    identical_rewards: Action = "warn"
    """All responses score the same, so that nothing can be learnt."""
    entropy_collapse: Action = "warn"
    """The policy has become certain of every token."""
    length_hack: Action = "warn"
    """The score rises while responses grow or shrink out of proportion."""
    repetition_hack: Action = "warn"
    """Responses repeat themselves more than at the start."""
    probe_divergence: Action = "warn"
    """The score rises while a probe, which is only watched, falls."""


class PpoHealthConfig(OnlineHealthConfig):
    """Faults of ppo."""

    value_blow_up: Action = "warn"
    """The critic's loss jumps and its values are worse than a constant."""


class GrpoHealthConfig(OnlineHealthConfig):
    """Faults of grpo."""

    zero_variance_groups: Action = "warn"
    """Nearly all groups of responses score alike inside the group."""
