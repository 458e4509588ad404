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


GENERATE = {
    "ours": "fairlead_rollout.py", "peer": "transformers_rollout.py", "peer_name": "transformers generate",
}  # fmt: skip

WORKS = {
    "rollout": Work(
        what="64 real prompts, up to 128 new tokens, natural stops, log-probabilities", unit="tokens", wanted=2.5,
        **GENERATE, agree={"tokens": 0.25, "mean_logprob": 0.1},
    ),
    "decode": Work(
        what="one prompt, one stream of up to 128 new tokens, log-probabilities", unit="tokens", wanted=1.5,
        **GENERATE, options=("--prompts", "1"),
    ),
    "sft-unpacked": Work(
        what="full SFT, 16 conversations a step, TRL pads them", unit="tokens", wanted=7,
        ours="fairlead_train.py", peer="trl_train.py", peer_name="TRL SFTTrainer", environment="trl",
        prepare=("rows.py", "sft"), options=("sft", "sft"), agree={"loss": 0.01},
    ),
}  # fmt: skip
