"""An OpenAI-style endpoint in a thread of this process: it answers as it is told and keeps what it was asked."""

import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

QUESTION = "{prompt}\n###\n{first}\n###\n{second}"
"""A question that can be taken apart again: the text of a prompt file."""


def fields(question):
    """Prompt, first and second reply of a QUESTION."""
    return question.split("\n###\n")


def longer(question):
    """A judge that likes length, whatever stands first."""
    _, first, second = fields(question)
    return f"I compared them. [[{'A' if len(first) > len(second) else 'B' if len(second) > len(first) else 'C'}]]"


class FakeJudge:
    """`answer` turns a question into the judge's words; `failures` are sent first: (status, headers, body) each."""

    def __init__(self, answer, failures=()):
        self.answer, self.failures = answer, list(failures)
        self.requests, self.lock = [], threading.Lock()
        self.url = ""

    @property
    def questions(self):
        """What was answered, in the order of arrival."""
        return [body["messages"][0]["content"] for _, body in self.requests]

    def respond(self, headers, body):
        with self.lock:
            if self.failures:
                return self.failures.pop(0)
            self.requests.append((headers, body))
        return 200, {}, json.dumps({"choices": [self.choice(body)]}).encode()

    def choice(self, body):
        content = self.answer(body["messages"][0]["content"])
        return {"message": {"role": "assistant", "content": content}}


@contextmanager
def fake_judge(answer=longer, failures=()):
    """The endpoint, listening on a free port until the block ends."""
    with listening(FakeJudge(answer, failures)) as judge:
        yield judge


@contextmanager
def listening(judge):
    """Any such endpoint."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            status, headers, content = judge.respond((self.path, dict(self.headers)), body)
            self.send_response(status)
            for name, value in {"Content-Length": str(len(content)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_):
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    judge.url = f"http://127.0.0.1:{server.server_port}/v1"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield judge
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
