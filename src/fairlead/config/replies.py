"""Options of the stage in which a model answers prompts and its answers become rows to learn from."""

from typing import ClassVar, Literal, get_args

from pydantic import PositiveInt, model_validator

from fairlead.config.common import ForwardConfig, RowsConfig, RuntimeConfig, SamplingConfig
from fairlead.config.endpoint import EndpointConfig
from fairlead.config.section import Section
from fairlead.config.terms import JUDGE, PATTERNED, REWARD_MODEL, Term, check_pattern, parse_term

Method = Literal["own_rejected", "best_of_n", "rejection_sampling"]
_OWN, _BEST, _REJECTION = get_args(Method)
_ONLY_FOR = {
    "max_tokens": (_OWN,), "min_tokens": (_OWN,), "ranked": (_BEST,), "min_score": (_REJECTION,),
    "num_responses_per_prompt": (_BEST, _REJECTION), "rewards": (_BEST, _REJECTION),
    "reward_model": (_BEST, _REJECTION), "answer_pattern": (_BEST, _REJECTION), "judge": (_BEST, _REJECTION),
    "ended_only": (_BEST, _REJECTION), "batch": (_BEST, _REJECTION),
}  # fmt: skip


class RepliesRowsConfig(RowsConfig):
    """Which prompts are answered."""

    train: tuple[str, ...] = ()
    """Files whose prompts are answered for training; own_rejected takes conversations, the others rows of any kind."""
    max_length: PositiveInt = 512
    """Longest prompt, in tokens; longer ones are left out."""
    held_out: tuple[str, ...] = ()
    """Files whose prompts are answered to measure on; a prompt that stands here too is not answered for training."""


class JudgeConfig(EndpointConfig):
    """A model behind an OpenAI-style endpoint that is asked, in both orders, which of two replies is better."""

    called: ClassVar[str] = "judge"

    prompt_file: str = ""
    """Text file with the question, in which {prompt}, {first} and {second} are filled in; empty takes our own."""
    max_answer_tokens: PositiveInt = 512
    """Longest answer of the judge, in tokens."""


class RepliesConfig(Section):
    """Rows made from a model's own replies: pairs to prefer by, or conversations to fine-tune on."""

    output: str = "runs/default"
    """Folder of the run; the stage writes into a folder of its own inside."""
    method: Method = "own_rejected"
    """Own reply rejected, reference chosen (SPIN, 2024); best reply chosen, worst rejected; best reply to imitate."""
    model: str = "@sft"
    """Model that replies."""
    data: RepliesRowsConfig = RepliesRowsConfig()
    """Prompts to answer."""
    num_responses_per_prompt: PositiveInt = 4
    """Replies to each prompt, of which the best is chosen."""
    rewards: tuple[str, ...] = (REWARD_MODEL,)
    """Summed to a score: judge (share of the others it beats), or any that grpo knows; WEIGHT*NAME weighs one."""
    reward_model: str = ""
    """Folder of a reward stage, for the reward of that name."""
    answer_pattern: str = ""
    """Regular expression whose first group is the answer in a reply; for exact_match, maths_answer and format."""
    judge: JudgeConfig = JudgeConfig()
    """The endpoint behind the reward of that name."""
    min_score: float | None = None
    """Best replies with a lower score are left out; null keeps all."""
    ranked: bool = False
    """Write all replies of different scores, best first, instead of the best and the worst."""
    ended_only: bool = True
    """Leave out replies that were cut off by the length limit: they would teach to stop in the middle of a sentence."""
    max_tokens: PositiveInt = 60
    """Both responses of a pair are cut to the same number of tokens, at most this, so that length is no cue."""
    min_tokens: PositiveInt = 8
    """Pairs that would be shorter are left out."""
    sampling: SamplingConfig = SamplingConfig(max_new_tokens=60)
    """How replies are drawn."""
    batch: ForwardConfig = ForwardConfig()
    """Size of a forward pass."""
    runtime: RuntimeConfig = RuntimeConfig()
    """Devices, precision, seed."""

    @property
    def terms(self) -> list[Term]:
        """What a reply is scored by; nothing when it is rejected for being the model's own."""
        return [] if self.method == _OWN else [parse_term(text, more=(JUDGE,)) for text in self.rewards]

    @property
    def scored_by_model(self) -> bool:
        """Whether a reward model is one of the rewards."""
        return any(term.name == REWARD_MODEL for term in self.terms)

    @model_validator(mode="after")
    def _has_effect(self) -> "RepliesConfig":
        for option, methods in _ONLY_FOR.items():
            if self.method not in methods and getattr(self, option) != type(self).model_fields[option].default:
                raise ValueError(f"replies.{option} has no meaning for replies.method={self.method}; leave it out")
        return self

    @model_validator(mode="after")
    def _scores(self) -> "RepliesConfig":
        if self.method == _OWN:
            return self
        names = [term.name for term in self.terms]
        if len(set(names)) != len(names) or not names:
            raise ValueError("replies.rewards is empty or names one reward twice; write each once, with a weight")
        if self.reward_model and REWARD_MODEL not in names:
            raise ValueError("replies.reward_model is not one of replies.rewards; add reward_model there")
        if (JUDGE in names) != bool(self.judge.url and self.judge.model):
            raise ValueError(
                "judge among replies.rewards goes with replies.judge.url and replies.judge.model; set all three or none"
            )
        patterned = set(names) & set(PATTERNED)
        if self.answer_pattern and not patterned:
            raise ValueError("replies.answer_pattern goes with exact_match, maths_answer or format; leave it out")
        check_pattern(self.answer_pattern, names, "replies")
        return self

    @model_validator(mode="after")
    def _chooses(self) -> "RepliesConfig":
        one = self.num_responses_per_prompt == 1
        if self.method == _BEST and one:
            raise ValueError("replies.num_responses_per_prompt=1: the best of one is also the worst; set 2 or more")
        if self.method == _REJECTION and one and self.min_score is None:
            raise ValueError("replies.num_responses_per_prompt=1 without replies.min_score rejects nothing; set either")
        if self.method != _OWN and one and any(term.name == JUDGE for term in self.terms):
            raise ValueError("replies.num_responses_per_prompt=1: a judge compares replies; set 2 or more")
        if self.method != _OWN and not one and self.sampling.temperature == 0:
            raise ValueError("replies.sampling.temperature=0 draws the same reply every time; set it above 0")
        if self.method == _REJECTION and not self.ended_only:
            raise ValueError(
                "replies.ended_only=false: sft would train an end after replies that were cut; leave it out"
            )
        return self
