"""Text out of tokens as they come: whole characters only, and nothing that may turn out to begin a stop string."""

from collections.abc import Callable, Sequence


class TextStream:
    """The text of one response. `add` returns what can be shown now; `ended` says that a stop string was met."""

    def __init__(self, decode: Callable[[Sequence[int]], str], stops: Sequence[str] = ()) -> None:
        self._decode, self._stops = decode, tuple(stops)
        self._tokens: list[int] = []
        self._shown = 0
        self.ended = False

    def add(self, token: int) -> str:
        """The new text that nothing can change any more."""
        self._tokens.append(token)
        text = self._decode(self._tokens)
        found = [at for stop in self._stops if (at := text.find(stop, max(self._shown - len(stop), 0))) >= 0]
        if found:
            self.ended = True
            return self._show(text, min(found))
        return self._show(text, len(text) - self._held(text))

    def rest(self) -> str:
        """What was held back, once the response has ended without a stop string."""
        text = self._decode(self._tokens)
        return "" if self.ended else self._show(text, len(text))

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
