"""Clients of an OpenAI-style server, many at once, in a process of its own and over bare sockets.

    echo '{"port": 8000, "bodies": [{…}], "clients": 64, "requests": 1}' | python bench/load.py

Says one JSON object: seconds in all, statuses, and of every answer that streamed its seconds to the first text, its
seconds in all, its pieces and why it ended. `requests` are those of each client, one after the other. With `leave`,
clients go after the first text, every second one without a word (RST). With `slow`, so many connections stand beside
them that send a byte of their headers now and then and come again when they are thrown out.
"""

import asyncio
import contextlib
import json
import socket
import struct
import sys
import time
from collections import Counter
from typing import Any

LINGER = struct.pack("ii", 1, 0)  # close by RST
PATIENCE = 600.0


class Load:
    """All clients of one run."""

    def __init__(
        self, *, port: int, bodies: list[dict[str, Any]], clients: int, requests: int = 1, leave: bool = False,
        slow: int = 0, path: str = "/v1/chat/completions",
    ) -> None:  # fmt: skip
        self.port, self.path, self.clients, self.requests = port, path, clients, requests
        self.bodies = [json.dumps(body).encode() for body in bodies]
        self.leave, self.slow = leave, slow
        self.statuses: Counter[str] = Counter()
        self.answers: list[dict[str, Any]] = []

    async def run(self) -> dict[str, Any]:
        """Let them all go at once."""
        slow = [asyncio.create_task(self._slow()) for _ in range(self.slow)]
        if slow:
            await asyncio.sleep(1.0)
        began = time.monotonic()
        async with asyncio.timeout(PATIENCE):
            await asyncio.gather(*(self._client(number) for number in range(self.clients)))
        seconds = time.monotonic() - began
        for task in slow:
            task.cancel()
        await asyncio.gather(*slow, return_exceptions=True)
        return {"seconds": seconds, "statuses": self.statuses, "answers": self.answers}

    async def _client(self, number: int) -> None:
        for turn in range(self.requests):
            try:
                await self._ask(number, self.bodies[(number + turn * self.clients) % len(self.bodies)])
            except (OSError, asyncio.IncompleteReadError) as error:
                self.statuses[type(error).__name__] += 1

    async def _ask(self, number: int, body: bytes) -> None:
        began = time.monotonic()
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, limit=1 << 20)
        head = (
            f"POST {self.path} HTTP/1.1\r\nhost: 127.0.0.1:{self.port}\r\ncontent-type: application/json\r\n"
            f"content-length: {len(body)}\r\nconnection: close\r\n\r\n"
        )
        try:
            writer.write(head.encode() + body)
            status = (await reader.readuntil(b"\r\n")).split()[1].decode()
            await reader.readuntil(b"\r\n\r\n")
            self.statuses[status] += 1
            if status == "200":
                await self._listen(reader, began)
            else:
                await reader.read()
            if self.leave and number % 2:
                sock = writer.get_extra_info("socket")
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER)
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def _listen(self, reader: asyncio.StreamReader, began: float) -> None:
        first, pieces, finish, done, tokens = 0.0, 0, None, False, None
        while line := await reader.readline():
            if not line.startswith(b"data: "):
                continue
            if line.startswith(b"data: [DONE]"):
                done = True
                continue
            event = json.loads(line[6:])
            tokens = (event.get("usage") or {}).get("completion_tokens", tokens)
            for choice in event.get("choices", ()):
                finish = choice.get("finish_reason") or finish
                if (choice.get("delta") or {}).get("content"):
                    pieces += 1
                    first = first or time.monotonic() - began
            if self.leave and pieces:
                return
        self.answers.append(
            {"first": first, "whole": time.monotonic() - began, "pieces": pieces, "finish": finish, "done": done,
             "tokens": tokens}
        )  # fmt: skip

    async def _slow(self) -> None:
        while True:
            with contextlib.suppress(OSError):
                reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
                try:
                    for byte in b"POST /v1/chat/completions HTTP/1.1\r\nx: " + b"y" * 1000:
                        writer.write(bytes([byte]))
                        await writer.drain()
                        await asyncio.sleep(0.25)
                        if reader.at_eof():
                            break
                finally:
                    writer.close()


if __name__ == "__main__":
    print(json.dumps(asyncio.run(Load(**json.load(sys.stdin)).run())))
