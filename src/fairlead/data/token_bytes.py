"""The bytes that a token stands for, which may be a part of a character. No torch here."""

import json
import re
from typing import Any

_BYTE = re.compile(r"<0x([0-9A-F]{2})>")
_PLAIN = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
_OTHERS = [byte for byte in range(256) if byte not in _PLAIN]
BYTE_OF = {chr(byte): byte for byte in _PLAIN} | {chr(256 + place): byte for place, byte in enumerate(_OTHERS)}
"""The characters by which byte-level vocabularies write bytes (GPT-2's table)."""


class TokenBytes:
    """Bytes of a tokenizer's tokens, whose vocabulary is of bytes or falls back to them; special ones have none."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        decoder = tokenizer.backend_tokenizer.decoder
        kinds = _kinds(json.loads(decoder.__getstate__())) if decoder is not None else set()
        self._byte_level, self._falls_back = "ByteLevel" in kinds, "ByteFallback" in kinds
        self._added = tokenizer.added_tokens_decoder

    def of(self, token: int) -> bytes:
        """The bytes of one token as they stand inside a text."""
        if token in self._added:
            return b"" if self._added[token].special else self._added[token].content.encode()
        piece = self._tokenizer.convert_ids_to_tokens(token)
        if self._byte_level and piece is not None and all(map(BYTE_OF.__contains__, piece)):
            return bytes(map(BYTE_OF.__getitem__, piece))
        if self._falls_back and (found := _BYTE.fullmatch(piece or "")):
            return bytes([int(found[1], 16)])
        return self._tokenizer.decode([token], skip_special_tokens=True).encode()


def _kinds(decoder: dict[str, Any]) -> set[str]:
    """Names of a decoder's parts."""
    return {decoder["type"], *(name for part in decoder.get("decoders", ()) for name in _kinds(part))}
