"""Preference pairs whose rejected side is the model's own reply and whose chosen side is the reference reply.

Departures from SPIN (Chen et al. 2024): the pairs train a reward model as well as DPO, and both sides are cut to the
same number of tokens, without an end token, so that a scorer cannot win by counting.
"""

from collections.abc import Iterator, Sequence

from fairlead.data.chat_template import ChatTemplate
from fairlead.records import Message, Preference, Prompt


def own_reply_pairs(
    template: ChatTemplate,
    prompts: Sequence[Prompt],
    replies: Sequence[tuple[int, ...]],
    *,
    max_tokens: int,
    min_tokens: int,
) -> list[Preference]:
    """One pair per prompt, with its reference answer, and the tokens that the model replied to it.

    None where the common length is under `min_tokens` or both sides agree.
    """
    return list(_pairs(template, prompts, replies, max_tokens, min_tokens))


def _pairs(
    template: ChatTemplate, prompts: Sequence[Prompt], replies: Sequence[tuple[int, ...]],
    max_tokens: int, min_tokens: int,
) -> Iterator[Preference]:  # fmt: skip
    for prompt, tokens in zip(prompts, replies, strict=True):
        both = cut_to_same_length(template, prompt.messages, (prompt.answer, template.decode(tokens)), max_tokens)
        if both is not None and both[0] >= min_tokens and both[1][0] != both[1][1]:
            yield Preference(prompt.messages, both[1], prompt.source)


def cut_to_same_length(
    template: ChatTemplate, prompt: Sequence[Message], texts: tuple[str, str], max_tokens: int
) -> tuple[int, tuple[str, str]] | None:
    """Both texts cut to one number of tokens, as text that encodes to exactly that many; None if there is none.

    A cut can fall inside a character (byte-level tokens) or change how its end is merged, so the length shrinks until
    both texts survive decoding and encoding.
    """
    ids = [template.encode_response(prompt, text, end_token=False)[1] for text in texts if text]
    if len(ids) < 2:
        return None
    for length in range(min(max_tokens, *map(len, ids)), 0, -1):
        cut = tuple(template.decode(row[:length]) for row in ids)
        again = [template.encode_response(prompt, text, end_token=False)[1] for text in cut if text.strip()]
        if len(again) == 2 and all(len(row) == length for row in again) and not any("\ufffd" in text for text in cut):
            return length, (cut[0], cut[1])
    return None
