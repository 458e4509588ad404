"""Prompts from what people said in chats: their turns, without personal data, without those said before. No torch."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from fairlead.config.filters import PiiConfig
from fairlead.config.grow import ChatsConfig
from fairlead.data.dedup import all_band_keys, near_duplicates
from fairlead.data.filters.outcome import Dropped, Kept
from fairlead.data.filters.pii import masked, pii
from fairlead.data.filters.texts import words_of
from fairlead.data.refine.shards import loss
from fairlead.records import Prompt

WIDTH = 5  # tokens of a shingle


def prompts_of_chats(
    chats: Sequence[Prompt], config: ChatsConfig, *, min_words: int
) -> tuple[list[Prompt], list[dict[str, str]]]:
    """The users' turns that are long enough, masked, each but once, in order; and the account of the others.

    A chat is its dialogue up to the last turn of the user. Turns are compared by what the user says in them, not by the
    dialogue before it.
    """
    clean: list[Prompt] = []
    refused: list[dict[str, str]] = []
    for turn in (turn for chat in chats for turn in user_turns(chat, every=config.turns == "every")):
        outcome = _checked(turn, config.pii, min_words)
        if isinstance(outcome, Kept):
            assert isinstance(outcome.record, Prompt)
            clean.append(outcome.record)
        else:
            refused.append(loss("chats", outcome.reason, turn.source, _shown(turn, config.pii)))
    said_before = _said_before(clean, config.max_overlap)
    for index, of in said_before.items():
        said = clean[index].messages[-1].content
        refused.append(loss("chats", "like an earlier turn", clean[index].source, said) | {"like": clean[of].source})
    return [prompt for index, prompt in enumerate(clean) if index not in said_before], refused


def user_turns(chat: Prompt, *, every: bool) -> Iterator[Prompt]:
    """The first turn of the user, or every one with the dialogue before it; a system turn stays."""
    for index, message in enumerate(chat.messages):
        if message.role == "user":
            yield replace(chat, messages=chat.messages[: index + 1], answer="")
            if not every:
                return


def _checked(turn: Prompt, config: PiiConfig, min_words: int) -> Kept | Dropped:
    if len(words_of(turn.messages[-1].content)) < min_words:
        return Dropped(f"fewer than {min_words} words")
    return pii(turn, config) if config.enabled else Kept(turn)


def _shown(turn: Prompt, config: PiiConfig) -> str:
    """What the user said, as the account may hold it."""
    said = turn.messages[-1].content
    return masked(said, config) if config.enabled else said


def _said_before(turns: Sequence[Prompt], max_overlap: float) -> dict[int, int]:
    """Turns that are like an earlier one, and like which."""
    if not max_overlap:
        return {}
    said = [turn.messages[-1].content for turn in turns]
    found = near_duplicates(
        all_band_keys(said, width=WIDTH), lambda places: [said[i] for i in places], threshold=max_overlap, width=WIDTH
    )
    return {one.index: one.of for one in found}
