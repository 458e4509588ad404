"""Conversations become token ids with a mask of what the model is taught. No torch here.

The conversation is rendered once by the model's own chat template, and every token's role is read off the spans of that
one text, never off token ids such as pad or eos. The spans come from a second render in which every content is replaced
by a marker: what stands between the markers is the template's own text. Putting the real contents back must give the
direct render, character by character, or the conversation is refused.
"""

import re
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

from fairlead.data.template_engine import refused, renderer_of
from fairlead.data.token_bytes import TokenBytes
from fairlead.errors import UserError
from fairlead.records import Message, plain

_MARKER = re.compile("\ue000([0-9]{1,7})\ue001")

TokenRole = Literal["system", "user", "assistant", "template"]


@dataclass(frozen=True, slots=True)
class Encoded:
    """One conversation as tokens: three tuples of equal length T."""

    input_ids: tuple[int, ...]
    trained: tuple[bool, ...]  # the model is taught to say this token
    roles: tuple[TokenRole, ...]  # whose words; `template` is what stands around them


@dataclass(frozen=True, slots=True)
class _Span:
    start: int  # characters
    end: int
    role: TokenRole
    message: int  # index of the message, -1 for the template's own text


@dataclass(frozen=True, slots=True)
class _Rendered:
    text: str
    spans: tuple[_Span, ...]  # cover the text without gaps
    trained: tuple[tuple[int, int], ...]  # characters of each assistant turn with its end token


@dataclass(frozen=True, slots=True)
class _Tokens:
    ids: list[int]
    starts: list[int]  # first character of each token; a token also owns what was trimmed before it
    ends: list[int]


class ChatTemplate:
    """The chat template of one tokenizer, checked when built.

    `tokenizer` is a fast tokenizer of transformers. `source` says where the template comes from: `tokenizer`, or
    `plain` where the tokenizer has none. `end_token_ids` ends an assistant turn: the token that the template writes
    after it, and `extra_end_token_ids` (a generation_config's eos ids).

    Raises UserError for a template that cannot be rendered, drops a message, or renders a prompt differently from the
    same prompt followed by its answer (what is trained would not be what is sampled).
    """

    def __init__(self, tokenizer: Any, *, extra_end_token_ids: Sequence[int] = ()) -> None:
        """Derive from the template how it opens and ends an assistant turn, and check it."""
        if not getattr(tokenizer, "is_fast", False):
            raise UserError("this tokenizer has no tokenizer.json", fix="use a model folder with a fast tokenizer")
        self._tokenizer = tokenizer
        self._added = {token.content: token for token in tokenizer.added_tokens_decoder.values() if token.special}
        longest_first: list[str] = sorted(self._added, key=len, reverse=True)
        self._control = re.compile("|".join(re.escape(content) for content in longest_first) or "(?!)")
        self.source, self._render_text = renderer_of(tokenizer)
        self._bytes = TokenBytes(tokenizer)
        self._lead = self._lead_of_a_piece()
        self._generation_tail = ""  # what the template writes after a prompt's last message
        self._end_text = ""  # what it writes to end an assistant turn
        self._cut_always = False
        self._derive()
        ending = self._control.findall(self._end_text)
        self.ends_turns = bool(ending)
        """Whether an end token closes an answer; without one, training cannot teach a model to stop."""
        derived = [tokenizer.convert_tokens_to_ids(ending[-1])] if ending else []
        if not derived and tokenizer.eos_token_id is not None:
            derived = [tokenizer.eos_token_id]
        self.end_token_ids: tuple[int, ...] = tuple(dict.fromkeys([*derived, *extra_end_token_ids]))

    def render(self, messages: Sequence[Message], *, add_generation_prompt: bool = False) -> str:
        """The text of a conversation, or of a prompt up to where the assistant speaks."""
        return self._render_text(plain(messages), add_generation_prompt)

    def encode(self, messages: Sequence[Message], max_length: int | None = None) -> Encoded:
        """Token ids of a conversation; trained are all assistant turns with their end tokens, and nothing else.

        Cut at the end to `max_length` tokens; a cut turn gets no end token. Special-token strings inside a content are
        encoded as the ordinary text they are.
        """
        rendered = self._rendered(messages, add_generation_prompt=False)
        tokens = self._tokenise(rendered)
        trained = tuple(any(start <= at < end for start, end in rendered.trained) for at in tokens.starts)
        roles = _roles(rendered, tokens.starts)
        return Encoded(tuple(tokens.ids[:max_length]), trained[:max_length], roles[:max_length])

    def encode_prompt(self, messages: Sequence[Message]) -> tuple[int, ...]:
        """Token ids of a prompt, ready for the model to answer: a prefix of `encode` of the prompt with any answer."""
        return tuple(self._tokenise(self._rendered(messages, add_generation_prompt=True)).ids)

    def encode_response(
        self, prompt: Sequence[Message], response: str, *, end_token: bool
    ) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Token ids of the prompt and of one response, with or without the end token; nothing after it is kept."""
        rendered = self._rendered([*prompt, Message("assistant", response)], add_generation_prompt=False)
        tokens = self._tokenise(rendered)
        answer = next(span for span in rendered.spans if span.message == len(prompt))
        start, turn_end = rendered.trained[-1]
        end = turn_end if end_token else answer.end
        first = sum(at < start for at in tokens.starts)
        last = sum(at < end for at in tokens.starts)
        return tuple(tokens.ids[:first]), tuple(tokens.ids[first:last])

    def encode_text(self, text: str) -> tuple[int, ...]:
        """Token ids of a plain text, with what the tokenizer puts before one, and no control token in it."""
        return tuple(self._tokenizer(text, split_special_tokens=True, verbose=False)["input_ids"])

    def decode(self, ids: Sequence[int], *, special: bool = False) -> str:
        """The text of token ids, with or without special tokens."""
        return self._tokenizer.decode(list(ids), skip_special_tokens=not special)

    def token_bytes(self, token: int) -> bytes:
        """The bytes of one token inside a text, which may be a part of a character; none of a special one."""
        return self._bytes.of(token)

    @property
    def special_token_ids(self) -> tuple[int, ...]:
        """Ids of the special tokens, ascending."""
        return tuple(sorted(i for i, token in self._tokenizer.added_tokens_decoder.items() if token.special))

    # --- from messages to spans of text

    def _rendered(self, messages: Sequence[Message], *, add_generation_prompt: bool) -> _Rendered:
        text = self.render(messages, add_generation_prompt=add_generation_prompt)
        literals, order = self._skeleton(messages, add_generation_prompt=add_generation_prompt)
        spans: list[_Span] = []
        trained: list[tuple[int, int]] = []
        position = _append(spans, _Span(0, len(literals[0]), "template", -1))
        for before, index, after in zip(literals, order, literals[1:], strict=False):
            message = messages[index]
            content = _content_in(text, position, message.content, after)
            if content is None:
                break
            start = position
            position = _append(spans, _Span(start, start + len(content), message.role, index))
            if message.role == "assistant":
                opened = start - len(before) + len(self._generation_tail)
                first = opened if before.startswith(self._generation_tail) else start
                ended = position + (len(self._end_text) if after.startswith(self._end_text) else 0)
                trained.append((first, ended))
            position = _append(spans, _Span(position, position + len(after), "template", -1))
        if position != len(text) or not text.startswith(literals[0]):
            raise refused("it changes a content, so what is trained cannot be told apart", text)
        return _Rendered(text, tuple(spans), tuple(trained))

    def _skeleton(self, messages: Sequence[Message], *, add_generation_prompt: bool) -> tuple[list[str], list[int]]:
        """The template's own text around the contents, and the messages in the order in which they appear."""
        marked = [Message(message.role, f"\ue000{index}\ue001") for index, message in enumerate(messages)]
        pieces = _MARKER.split(self.render(marked, add_generation_prompt=add_generation_prompt))
        order = [int(index) for index in pieces[1::2]]
        if any(index >= len(messages) for index in order):
            raise refused("it writes private characters (U+E000 and U+E001) of its own", "".join(pieces[::2]))
        for index, message in enumerate(messages):
            if order.count(index) != 1:
                times = f"writes message {index + 1} ({message.role}) {order.count(index)} times"
                raise refused(f"it {times}", self.render(messages, add_generation_prompt=add_generation_prompt))
        return pieces[::2], order

    # --- from text to tokens

    def _tokenise(self, rendered: _Rendered) -> _Tokens:
        """One pass over the whole text. A border of prompt and response that a token straddles is cut there.

        Such a token (an answer that opens with a line feed after a header that ends with one) could never be sampled,
        because the prompt is tokenised alone before the model answers.
        """
        tokens = self._one_pass(rendered, 0, len(rendered.text))
        borders = [start for start, _ in rendered.trained]
        if not self._cut_always:
            pairs = list(zip(tokens.starts, tokens.ends, strict=True))
            borders = [border for border in borders if any(start < border < end for start, end in pairs)]
        if not borders:
            return tokens
        edges = [0, *borders, len(rendered.text)]
        pieces = [self._one_pass(rendered, start, end) for start, end in pairwise(edges)]
        return _joined(pieces)

    def _one_pass(self, rendered: _Rendered, start: int, end: int) -> _Tokens:
        """Tokens of text[start:end]. Where a content holds a special-token string, only the template's own are control.

        Control tokens split a text before anything else looks at it, so cutting there by hand changes no other token.
        """
        text, contents = rendered.text, [span for span in rendered.spans if span.message >= 0]
        injected = any(
            span.start < match.end() and match.start() < span.end
            for match in self._control.finditer(text, start, end)
            for span in contents
        )
        if not injected:
            return self._call(text, start, end, ordinary=False)
        pieces: list[_Tokens] = []
        position, skip_space = start, False
        for first, last in self._own_control(rendered, start, end):
            token = self._added[text[first:last]]
            pieces.append(self._ordinary(text, position, first, left=skip_space, right=token.lstrip))
            pieces.append(_Tokens([self._tokenizer.convert_tokens_to_ids(token.content)], [first], [last]))
            position, skip_space = last, token.rstrip
        pieces.append(self._ordinary(text, position, end, left=skip_space, right=False))
        return _joined(pieces)

    def _own_control(self, rendered: _Rendered, start: int, end: int) -> list[tuple[int, int]]:
        literals = [span for span in rendered.spans if span.message < 0]
        found = [m for span in literals for m in self._control.finditer(rendered.text, span.start, span.end)]
        return [(m.start(), m.end()) for m in found if start <= m.start() and m.end() <= end]

    def _ordinary(self, text: str, start: int, end: int, *, left: bool, right: bool) -> _Tokens:
        """Tokens of a stretch without control tokens; `left` and `right` drop white space a control token swallows."""
        if left:
            start = end - len(text[start:end].lstrip())
        if right:
            end = start + len(text[start:end].rstrip())
        tokens = self._call(text, start, end, ordinary=True)
        control = {self._tokenizer.convert_tokens_to_ids(content) for content in self._added}
        if control.intersection(tokens.ids) - {self._tokenizer.unk_token_id}:
            raise refused("its tokenizer makes a control token out of ordinary text", text[start:end])
        return tokens

    def _call(self, text: str, start: int, end: int, *, ordinary: bool) -> _Tokens:
        lead = self._lead if start else ""
        called = self._tokenizer(
            lead + text[start:end],
            add_special_tokens=False,  # the template has written them
            return_offsets_mapping=True,
            split_special_tokens=ordinary,
            verbose=False,
        )
        tokens = _Tokens([], [], [])
        previous_end = 0
        for token, (offset, last) in zip(called["input_ids"], called["offset_mapping"], strict=True):
            # Byte-level tokenizers trim the space off the offsets of " word"; it belongs to the token all the same.
            first, previous_end = min(offset, previous_end), last
            if last > len(lead) or not lead:
                tokens.ids.append(token)
                tokens.starts.append(max(first - len(lead), 0) + start)
                tokens.ends.append(last - len(lead) + start)
        return tokens

    def _lead_of_a_piece(self) -> str:
        """What to put before a piece of a text so that the tokenizer does not take it for the start of one.

        SentencePiece tokenizers put a space before the start of a text only; a line feed shields the piece from it.
        """
        if not self._added:
            return ""
        control = next(iter(self._added))
        after_control = self._tokenizer(control + "a", add_special_tokens=False)["input_ids"][1:]
        return "" if after_control == self._tokenizer("a", add_special_tokens=False)["input_ids"] else "\n"

    # --- what the template does, found out by asking it

    def _derive(self) -> None:
        """Find how the template opens and ends an assistant turn, and prove that prompt + answer begins as the prompt.

        Two exchanges are probed, because templates may treat the last one differently.
        """
        prompt = [Message("user", "Good morning."), Message("assistant", "Hello."), Message("user", "Who are you?")]
        for turns in (prompt[:1], prompt):
            full = [*turns, Message("assistant", "A model.")]
            self._generation_tail = self._skeleton(turns, add_generation_prompt=True)[0][-1]
            tail = self._skeleton(full, add_generation_prompt=False)[0][-1]
            ending = self._control.search(tail)
            self._end_text = tail[: ending.end()] if ending else ""
            asked, answered = self.render(turns, add_generation_prompt=True), self.render(full)
            if not answered.startswith(asked):
                problem = (
                    "it renders a prompt differently once the answer follows, so training and chatting would differ"
                )
                raise refused(problem, f"{asked!r} and {answered!r}")
            if not self._prompt_is_prefix(turns, full):
                self._cut_always = True
            if not self._prompt_is_prefix(turns, full):
                raise refused("a prompt's tokens change once the answer follows", f"{asked!r} and {answered!r}")

    def _prompt_is_prefix(self, prompt: list[Message], full: list[Message]) -> bool:
        ids = self.encode_prompt(prompt)
        return self.encode(full).input_ids[: len(ids)] == ids


def _append(spans: list[_Span], span: _Span) -> int:
    if span.end > span.start or span.message >= 0:
        spans.append(span)
    return span.end


def _content_in(text: str, position: int, content: str, after: str) -> str | None:
    """How the template wrote a content at `position`: as it is, or stripped of white space; None if otherwise."""
    forms = (content, content.strip(), content.lstrip(), content.rstrip(), content.strip("\n"), content.lstrip("\n"))
    return next((form for form in forms if text.startswith(form + after, position)), None)


def _roles(rendered: _Rendered, starts: Sequence[int]) -> tuple[TokenRole, ...]:
    """The role of each token: of the span it starts in, and of the assistant for what else an assistant turn holds."""
    borders = [span.start for span in rendered.spans]
    roles: list[TokenRole] = []
    for at in starts:
        if any(start <= at < end for start, end in rendered.trained):
            roles.append("assistant")
        else:
            roles.append(rendered.spans[bisect_right(borders, at) - 1].role)
    return tuple(roles)


def _joined(pieces: Sequence[_Tokens]) -> _Tokens:
    return _Tokens(
        [token for piece in pieces for token in piece.ids],
        [start for piece in pieces for start in piece.starts],
        [end for piece in pieces for end in piece.ends],
    )
