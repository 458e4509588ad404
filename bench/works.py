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
    peer_options_on_cuda: tuple[str, ...] = ()  # instead, where a GPU has another best batch
    wanted_memory: float | None = None  # greatest ratio of the peaks
    agree: dict[str, float] = field(default_factory=dict)  # measured by both sides: greatest relative difference
    drawn: bool = False  # what is compared is drawn at random, so its means over the alternations are compared


GENERATE = {
    "ours": "fairlead_rollout.py", "peer": "transformers_rollout.py", "peer_name": "transformers generate",
}  # fmt: skip
TRL = {"ours": "fairlead_train.py", "peer": "trl_train.py", "environment": "trl"}

WORKS = {
    "rollout": Work(
        what="64 real prompts, up to 128 new tokens, natural stops, log-probabilities", unit="tokens", wanted=2.5,
        **GENERATE, agree={"tokens": 0.1, "mean_logprob": 0.1}, drawn=True,
    ),
    "decode": Work(
        what="one prompt, one stream of up to 128 new tokens, log-probabilities", unit="tokens", wanted=1.5,
        **GENERATE, options=("--prompts", "1"),
    ),
    "sft-packed": Work(
        what="full SFT, 16 conversations a step, TRL packs them into 4 rows of 1024 tokens", unit="tokens", wanted=3.5,
        **TRL, peer_name="TRL SFTTrainer, packing", prepare=("rows.py", "sft"), options=("sft", "sft"),
        peer_options=("--packing", "--batch", "1"),
        peer_options_on_cuda=("--packing", "--batch", "4"), agree={"loss": 0.01}, wanted_memory=0.5,
    ),
    "sft-masters": Work(
        what="the same, TRL too with float32 weights and moments under bf16 autocast", unit="tokens", wanted=3.5,
        **TRL, peer_name="TRL SFTTrainer, packing, float32", prepare=("rows.py", "sft"), options=("sft", "sft"),
        peer_options=("--packing", "--batch", "1", "--dtype", "float32"), agree={"loss": 0.01}, wanted_memory=0.5,
    ),
    "sft-unpacked": Work(
        what="full SFT, 16 conversations a step, TRL pads them", unit="tokens", wanted=7,
        **TRL, peer_name="TRL SFTTrainer", prepare=("rows.py", "sft"), options=("sft", "sft"),
        peer_options=("--batch", "2"), agree={"loss": 0.01}, wanted_memory=0.5,
    ),
    "reward": Work(
        what="full reward model, 16 pairs a step", unit="pairs", wanted=2,
        **TRL, peer_name="TRL RewardTrainer", prepare=("rows.py", "pairs"),
        options=("reward", "pairs", "--unit", "rows"), peer_options=("--batch", "2"), agree={"loss": 0.02},
    ),
    "dpo": Work(
        what="full DPO, 16 pairs a step, the reference's log-probabilities included", unit="pairs", wanted=4,
        **TRL, peer_name="TRL DPOTrainer", prepare=("rows.py", "pairs"),
        options=("dpo", "pairs", "--unit", "rows"), peer_options=("--batch", "2"), agree={"loss": 0.01},
    ),
    "own-reward": Work(
        what="tokens of the reward model, a shared prompt counted once, beside SFT on the responses",
        unit="tokens", wanted=0.85, ours="fairlead_train.py", peer="fairlead_train.py", peer_name="fairlead sft",
        ours_options=("reward", "pairs", "--unit", "work"), peer_options=("sft", "responses"),
        prepare=("rows.py", "pairs", "responses"),
    ),
    "own-dpo": Work(
        what="tokens of DPO, a shared prompt counted once, 4/3 each with the reference, beside SFT on the responses",
        unit="tokens", wanted=0.85, ours="fairlead_train.py", peer="fairlead_train.py", peer_name="fairlead sft",
        ours_options=("dpo", "pairs", "--unit", "work"), peer_options=("sft", "responses"),
        prepare=("rows.py", "pairs", "responses"),
    ),
    "dedup": Work(
        what="near-duplicates among 20,000 documents of 500 characters, by CPU time, each verified",
        unit="documents", wanted=5,
        ours="fairlead_dedup.py", peer="datasketch_dedup.py", peer_name="datasketch", environment="dedup",
        prepare=("documents.py",), agree={"duplicates": 0.02},
    ),
    "dedup-datatrove": Work(
        what="the same; datatrove takes what shares a band for a duplicate", unit="documents", wanted=5,
        ours="fairlead_dedup.py", peer="datatrove_dedup.py", peer_name="datatrove MinHash", environment="dedup",
        prepare=("documents.py",),
    ),
    "grpo": Work(
        what="full GRPO, 4 prompts x 8 responses of 64 tokens, 2 optimizer steps, a rule as reward", unit="tokens",
        wanted=4, ours="fairlead_online.py", peer="trl_grpo.py", peer_name="TRL GRPOTrainer", environment="trl",
        prepare=("prompts.py",),
        options=("grpo", "--num-prompts", "4", "--group", "8", "--max-new-tokens", "64"),
        peer_options=("--batch", "16"), agree={"tokens": 0.0, "steps": 0.0},
    ),
    "grpo-mixed": Work(
        what="the same, 4 prompts of 40 to 256 tokens x 4 responses", unit="tokens",
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
        what="the same, 8 prompts of 40 to 256 tokens", unit="tokens",
        wanted=4, ours="fairlead_online.py", peer="trl_ppo.py", peer_name="TRL 1.12 PPOTrainer", environment="trl-ppo",
        prepare=("prompts.py", "--reward"),
        options=("ppo", "--prompts", "mixed", "--num-prompts", "8", "--max-new-tokens", "48"),
        peer_options=("--batch", "8"), agree={"tokens": 0.0, "steps": 0.0},
    ),
}  # fmt: skip
