"""Of several replies to one prompt the best: preferences and conversations made from scores.

The best and the worst of n make a pair (Stiennon et al. 2020; Yuan et al. 2024), the best alone a conversation to
fine-tune on (rejection sampling, Touvron et al. 2023; RAFT, Dong et al. 2023). How far the best of n
may lie from the policy that drew them is `algos.kl.best_of_n_kl`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from fairlead.records import Conversation, Message, Preference, Prompt


@dataclass(frozen=True, slots=True)
class Reply:
    """What a model said and what it is worth; a higher score is better."""

    text: str
    score: float = 0.0


def is_text(reply: str) -> bool:
    """Whether a reply says something that rows can hold: a cut can fall inside a character (byte-level tokens)."""
    return bool(reply.strip()) and not {"\0", "\ufffd"}.intersection(reply)


def distinct(replies: Sequence[Reply]) -> list[Reply]:
    """The replies without those that say the same as an earlier one, outer white space aside."""
    first: dict[str, Reply] = {}
    for reply in replies:
        first.setdefault(reply.text.strip(), reply)
    return list(first.values())


def ranking(replies: Sequence[Reply]) -> list[Reply]:
    """Best first. Of equal scores only the reply drawn first stays: nothing says which of them is better."""
    by_score = {reply.score: reply for reply in reversed(replies)}
    return [by_score[score] for score in sorted(by_score, reverse=True)]


def ranked_preference(prompt: Prompt, replies: Sequence[Reply], *, whole: bool) -> Preference | None:
    """The best and the worst reply, or the `whole` ranking; None when no two scores differ."""
    ranked = ranking(replies)
    kept = ranked if whole else [*ranked[:1], *ranked[-1:]]
    return Preference(prompt.messages, tuple(r.text for r in kept), prompt.source) if len(ranked) > 1 else None


def best_conversation(prompt: Prompt, replies: Sequence[Reply], *, min_score: float | None) -> Conversation | None:
    """The prompt with the best reply; None when there is no reply, or the best scores below `min_score`."""
    best = next(iter(ranking(replies)), None)
    if best is None or (min_score is not None and best.score < min_score):
        return None
    return Conversation((*prompt.messages, Message("assistant", best.text)), prompt.source)
