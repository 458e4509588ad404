"""Text out of tokens as they come: whole characters only, and nothing that may turn out to begin a stop string."""

from collections.abc import Callable, Sequence

SETTLE = 16  # tokens after which the older ones are looked at, whether they can be done with
AFTER = 4  # tokens that must stand behind those: a character has four bytes, and every token one at least
CONTEXT = 4  # tokens that are decoded again for their neighbours' sake: some decoders drop the first space


class TextStream:
    """The text of one response. `add` returns what can be shown now; `ended` says that a stop string was met.

    A few of the latest tokens are decoded at a time. Older ones are settled once the text is the same without them.
    """

    def __init__(self, decode: Callable[[Sequence[int]], str], stops: Sequence[str] = ()) -> None:
        self._decode, self._stops = decode, tuple(stops)
        self._longest = max(map(len, self._stops), default=0)
        self._tokens: list[int] = []  # the context and those that are not settled
        self._context = 0  # characters of the context
        self._settled = ""  # the end of the text of all settled tokens
        self._shown = 0  # characters from where that begins
        self.ended = False

    def add(self, token: int) -> str:
        """The new text that nothing can change any more."""
        self._tokens.append(token)
        text = self._text()
        found = [at for stop in self._stops if (at := text.find(stop, max(self._shown - len(stop), 0))) >= 0]
        if found:
            self.ended = True
            return self._show(text, min(found))
        new = self._show(text, len(text) - self._held(text))
        if len(self._tokens) >= CONTEXT + SETTLE and len(self._tokens) % (SETTLE // 2) == 0:
            self._settle()
        return new

    def rest(self) -> str:
        """What was held back, once the response has ended without a stop string."""
        text = self._text()
        return "" if self.ended else self._show(text, len(text))

    def _text(self) -> str:
        return self._settled + self._decode(self._tokens)[self._context :]

    def _settle(self) -> None:
        """Be done with the older tokens, where their text and that of the later ones are the whole."""
        whole = self._decode(self._tokens)
        for end in range(len(self._tokens) - AFTER, len(self._tokens) - 2 * AFTER, -1):
            done = self._decode(self._tokens[:end])
            before = self._decode(self._tokens[end - CONTEXT : end])
            if "\ufffd" in before:  # it may begin within a character
                context, later = 0, self._tokens[end:]
            else:
                context, later = len(before), self._tokens[end - CONTEXT :]
            if whole != done + self._decode(later)[context:] or not _is_whole(done, whole[len(done) :]):
                continue
            text = self._settled + done[self._context :]
            first = max(min(self._shown - self._longest, len(text)), 0)
            self._settled, self._shown = text[first:], self._shown - first
            self._tokens, self._context = later, context
            return

    def _held(self, text: str) -> int:
        """Characters at the end that may still change, or may begin a stop string."""
        whole = text.rstrip("\ufffd")
        beginnings = [
            size for stop in self._stops for size in range(len(stop) - 1, 0, -1) if whole.endswith(stop[:size])
        ]
        return len(text) - len(whole) + max(beginnings, default=0)

    def _show(self, text: str, end: int) -> str:
        new = text[self._shown : end]
        self._shown = max(self._shown, end)
        return new


def _is_whole(text: str, after: str) -> bool:
    """Whether no later byte can become part of the last character of `text`, by what stands after it."""
    return not text.endswith("\ufffd") or after.strip("\ufffd") != ""
