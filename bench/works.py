"""What `compare.py` can compare."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Work:
    """Two scripts in bench/sides/ that do the same work, and what is wanted of them."""

    what: str
    unit: str  # what a rate counts
    wanted: float  # least ratio of the rates
    ours: str
    peer: str
    peer_name: str
    environment: str | None = None  # the peer's, in bench/.environments; None: our own
    prepare: tuple[str, ...] = ()  # a script in bench/ and its options, run once before
    options: tuple[str, ...] = ()  # for both sides
    ours_options: tuple[str, ...] = ()
    peer_options: tuple[str, ...] = ()
    agree: dict[str, float] = field(default_factory=dict)  # measured by both sides: greatest relative difference


WORKS = {
    "rollout": Work(
        what="64 real prompts, up to 128 new tokens, natural stops, log-probabilities", unit="tokens", wanted=2.5,
        ours="fairlead_rollout.py", peer="transformers_rollout.py", peer_name="transformers generate",
    ),
    "grpo": Work(
        what="full GRPO, 4 prompts x 8 responses of 64 tokens, 2 optimizer steps, a rule as reward", unit="tokens",
        wanted=4, ours="fairlead_online.py", peer="trl_grpo.py", peer_name="TRL GRPOTrainer", environment="trl",
        prepare=("prompts.py",),
        options=("grpo", "--num-prompts", "4", "--group", "8", "--max-new-tokens", "64"),
        peer_options=("--batch", "16"), agree={"tokens": 0.0, "steps": 0.0},
    ),
    "grpo-mixed": Work(
        what="the same, 4 prompts of 40 to 500 tokens x 4 responses", unit="tokens",
        wanted=4, ours="fairlead_online.py", peer="trl_grpo.py", peer_name="TRL GRPOTrainer", environment="trl",
        prepare=("prompts.py",),
        options=("grpo", "--prompts", "mixed", "--num-prompts", "4", "--group", "4", "--max-new-tokens", "64"),
        peer_options=("--batch", "8"), agree={"tokens": 0.0, "steps": 0.0},
    ),
    "ppo": Work(
        what="PPO with LoRA, four roles, 16 responses of 48 tokens, 2 epochs of one step", unit="tokens",
        wanted=4, ours="fairlead_online.py", peer="trl_ppo.py", peer_name="TRL 1.12 PPOTrainer", environment="trl-ppo",
        prepare=("prompts.py", "--reward"), options=("ppo", "--num-prompts", "16", "--max-new-tokens", "48"),
        peer_options=("--batch", "16"), agree={"tokens": 0.0, "steps": 0.0},
    ),
    "ppo-mixed": Work(
        what="the same, 8 prompts of 40 to 500 tokens", unit="tokens",
        wanted=4, ours="fairlead_online.py", peer="trl_ppo.py", peer_name="TRL 1.12 PPOTrainer", environment="trl-ppo",
        prepare=("prompts.py", "--reward"),
        options=("ppo", "--prompts", "mixed", "--num-prompts", "8", "--max-new-tokens", "48"),
        peer_options=("--batch", "8"), agree={"tokens": 0.0, "steps": 0.0},
    ),
}  # fmt: skip
