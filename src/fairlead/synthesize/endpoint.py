"""Asking an OpenAI-style endpoint: patiently where it is busy, once where it refuses. Text is all that is sent."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from http.client import HTTPException
from typing import Any, NoReturn
from urllib.error import HTTPError
from urllib.request import HTTPRedirectHandler, Request, build_opener

import orjson

from fairlead.config.endpoint import EndpointConfig
from fairlead.errors import ExitCode, UserError
from fairlead.records import Message

FIRST_WAIT_SECONDS, LONGEST_WAIT_SECONDS = 1.0, 60.0
MAX_ANSWER_BYTES = 4_000_000

_BUSY = (408, 425, 429, 500, 502, 503, 504)


@dataclass(frozen=True, slots=True)
class Answer:
    """What a model said, and whether it ended by itself: not where the length limit cut it.

    `problem` says why it was not asked, where it was not.
    """

    text: str
    finished: bool = True
    problem: str = ""


class RefusedError(UserError):
    """The endpoint does not take a request: wrong key, wrong name, or a text that it will not read."""

    def __init__(self, status: int, what: str, *, where: str, got: str, fix: str) -> None:
        self.status = status
        super().__init__(what, where=where, got=got, fix=fix)


class Endpoint:
    """One model at one address. Every failure is a UserError: 66 out of reach, 65 unreadable, 2 refused."""

    def __init__(self, config: EndpointConfig, api_key: str) -> None:
        self.url = f"{config.url.rstrip('/')}/chat/completions"
        self._config, self._api_key, self._called = config, api_key, config.called
        self._opener = build_opener(_NoRedirect)  # another address would be sent the key

    def ask(self, messages: Sequence[Message], **options: Any) -> Answer:
        """The model's next turn; `options` are fields of the request, such as temperature."""
        turns = [{"role": message.role, "content": message.content} for message in messages]
        return self._read(self._post(orjson.dumps({"model": self._config.model, "messages": turns, **options})))

    def _post(self, body: bytes) -> bytes:
        headers = {"Content-Type": "application/json"}
        if self._api_key:
            headers["Authorization"] = f"Bearer {self._api_key}"
        problem, wait = "", FIRST_WAIT_SECONDS
        for attempt in range(self._config.num_retries + 1):
            if attempt:
                time.sleep(min(wait, LONGEST_WAIT_SECONDS))
                wait *= 2
            request = Request(self.url, body, headers)  # noqa: S310 - EndpointConfig lets http and https alone through
            try:
                with self._opener.open(request, timeout=self._config.timeout_seconds) as response:
                    return response.read(MAX_ANSWER_BYTES)
            except HTTPError as error:
                problem = f"status {error.code}: {self._shown(error)}"
                if error.code not in _BUSY:
                    raise self._refused(error.code, problem) from None
                wait = max(wait, _seconds_asked_for(error))
            except (OSError, HTTPException) as error:  # URLError and timeouts are OSErrors
                problem = str(getattr(error, "reason", "") or error) or type(error).__name__
        raise UserError(
            f"the {self._called} cannot be reached", where=self.url, got=problem,
            want=f"an answer within {self._config.timeout_seconds:g} seconds ({self._config.num_retries + 1} tries)",
            fix=f"start the server, or mend {self._called}.url; the same command goes on with the answers it has",
            exit_code=ExitCode.MISSING_INPUT,
        )  # fmt: skip

    def _refused(self, status: int, problem: str) -> RefusedError:
        called = self._called
        return RefusedError(
            status, f"the {called} refuses the question", where=self.url, got=problem,
            fix=f"mend {called}.url, {called}.model or the key that {called}.api_key_variable names",
        )  # fmt: skip

    def _shown(self, error: HTTPError) -> str:
        """What the server said, short, and without the key should it repeat it."""
        try:
            text = error.read(2000).decode("utf-8", "replace")
        except (OSError, HTTPException):  # the status says enough
            return ""
        text = text.replace(self._api_key, "***") if self._api_key else text
        return " ".join(text.split())[:200]

    def _read(self, raw: bytes) -> Answer:
        """The words of a chat completion; none where the model thought until the limit, or a filter took them."""
        try:
            choice = orjson.loads(raw)["choices"][0]
            content, reason = choice["message"]["content"], choice.get("finish_reason")
        except (ValueError, KeyError, IndexError, TypeError, AttributeError):
            content, reason = None, None
        if content is None and reason in ("length", "content_filter"):
            content = ""
        if not isinstance(content, str):
            raise UserError(
                f"the {self._called}'s answer cannot be read", where=self.url,
                got=raw[:200].decode("utf-8", "replace"), want="a chat completion: choices[0].message.content",
                fix=f"name an OpenAI-style endpoint in {self._called}.url", exit_code=ExitCode.BAD_DATA,
            )  # fmt: skip
        return Answer(content, reason != "length")


class _NoRedirect(HTTPRedirectHandler):
    def http_error_302(self, req: Request, fp: Any, code: int, msg: str, headers: Any) -> NoReturn:
        raise HTTPError(req.full_url, code, msg, headers, fp)

    http_error_301 = http_error_303 = http_error_307 = http_error_308 = http_error_302


def _seconds_asked_for(error: HTTPError) -> float:
    asked = error.headers.get("Retry-After", "")
    return float(asked) if asked.isdigit() else 0.0
