"""`fairlead serve` under load, and the same load on other servers of the same model.

    OMP_NUM_THREADS=2 python bench/serve.py echo               # the server alone: writes DATE-serve-echo.json
    OMP_NUM_THREADS=2 python bench/serve.py model --clients 64 # streams of 32 tokens: writes DATE-serve.json
    python bench/compare.py --install transformers-serve       # a peer's environment

`echo`: 1,000 streams at once; memory after 1,000 and 10,000 requests; 1,000 clients that go in mid-stream; honest
clients beside 200 connections that send their headers byte by byte. `model`: SmolLM2-135M-Instruct, greedy, every side
a server of its own that lives through the whole run; in each alternation one server after the other has the load, and
who begins changes. A server that is not installed is left out. All in bfloat16.
"""

import argparse
import json
import os
import re
import socket
import statistics
import subprocess
import sys
import time
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from compare import BENCH, ENVIRONMENTS, environment

from fairlead.models.sources import resolve

MODEL = "smollm2-135m-instruct"
CLIENTS, NEW_TOKENS = 64, 32
START_SECONDS = 180


class Side:
    """A server in a process of its own."""

    def __init__(self, name: str, argv: Sequence[str], model: str, port: int, *, usage: bool) -> None:
        self.name, self.model, self.port, self.usage = name, model, port, usage
        self._process = subprocess.Popen(argv, stdout=subprocess.DEVNULL, env={**os.environ, "HF_HUB_OFFLINE": "1"})
        self._wait()

    def load(self, **options: Any) -> dict[str, Any]:
        """Let clients at it."""
        asked = json.dumps({"port": self.port, **options})
        command = [sys.executable, str(BENCH / "load.py")]
        done = subprocess.run(command, input=asked, capture_output=True, text=True, check=True)
        return json.loads(done.stdout)

    def status(self, name: str) -> int:
        """A number of /proc, such as VmRSS in KiB."""
        text = Path(f"/proc/{self._process.pid}/status").read_text()
        found = re.search(rf"{name}:\s+(\d+)", text)
        assert found is not None, name
        return int(found[1])

    def files(self) -> int:
        """Open file descriptors."""
        return len(list(Path(f"/proc/{self._process.pid}/fd").iterdir()))

    def figure(self, name: str) -> float:
        """A number of /metrics."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics") as answer:
            page = answer.read().decode()
        return sum(float(line.split()[-1]) for line in page.splitlines() if line.startswith(name))

    def stop(self) -> None:
        """End it."""
        self._process.terminate()
        self._process.wait()

    def _wait(self) -> None:
        end = time.monotonic() + START_SECONDS
        while time.monotonic() < end:
            if self._process.poll() is not None:
                sys.exit(f"error: {self.name} ended with code {self._process.returncode}; its message stands above")
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
            except OSError:
                time.sleep(0.2)
            else:
                return
        sys.exit(f"error: {self.name} does not listen after {START_SECONDS} s")


def fairlead(*words: str, model: str = MODEL) -> Side:
    """Ours."""
    port = free_port()
    argv = [sys.executable, "-m", "fairlead", "serve", *words, "--port", str(port), "--store", ""]
    return Side("fairlead", argv, model, port, usage=True)


def transformers_serve(*options: str, name: str) -> Side | None:
    """transformers' own server, where it is installed."""
    command = ENVIRONMENTS / "transformers-serve" / "bin" / "transformers"
    if not command.exists():
        return None
    port, folder = free_port(), str(resolve(MODEL).base.folder)
    argv = [str(command), "serve", folder, "--device", "cpu", "--dtype", "bfloat16", "--port", str(port), *options]
    return Side(name, argv, folder, port, usage=False)


def free_port() -> int:
    """A port that nobody listens at."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


def echo() -> dict[str, Any]:
    """The server without a model."""
    body = {"model": "echo", "messages": [{"role": "user", "content": "a few words to say again"}], "stream": True}
    side = fairlead("models=[]", "--echo", "true", model="echo")
    many = side.load(bodies=[body], clients=1000)
    said = {"clients": 1000, "seconds": many["seconds"], "statuses": many["statuses"], **times(many["answers"]),
            "complete": sum(one["done"] for one in many["answers"])}  # fmt: skip
    before = side.files()
    left = side.load(bodies=[{**body, "messages": [{"role": "user", "content": "x" * 3000}]}], clients=1000, leave=True)
    time.sleep(2)
    gone = {"statuses": left["statuses"], "running": side.figure("vllm:num_requests_running"),
            "waiting": side.figure("vllm:num_requests_waiting"), "files": side.files() - before}  # fmt: skip
    alone, beside = [], []
    for _ in range(3):
        alone.append(times(side.load(bodies=[body], clients=4, requests=50)["answers"])["whole_median"])
        beside.append(times(side.load(bodies=[body], clients=4, requests=50, slow=200)["answers"])["whole_median"])
    slow = {"alone": alone, "beside": beside, "ratio": statistics.median(beside) / statistics.median(alone)}
    side.stop()
    side = fairlead("models=[]", "--echo", "true", model="echo")
    memory = {}
    for requests in (1_000, 9_000):
        side.load(bodies=[body], clients=50, requests=requests // 50)
        memory[str(requests + sum(map(int, memory)))] = side.status("VmRSS")
    side.stop()
    return {"work": "serve-echo", "streams": said, "disconnects": gone, "slow_headers": slow, "rss_kib": memory}


def model(alternations: int, clients: int) -> dict[str, Any]:
    """A real model on every server that is there."""
    made = [
        fairlead(MODEL), transformers_serve(name="transformers serve"),
        transformers_serve("--continuous-batching", name="transformers serve --continuous-batching")
    ]  # fmt: skip
    sides = [side for side in made if side is not None]
    rounds: dict[str, list[dict[str, Any]]] = {side.name: [] for side in sides}
    for number in range(alternations + 1):
        for side in sides if number % 2 == 0 else reversed(sides):
            rounds[side.name].append(round_of(side, 4 if number == 0 else clients))
            print(number, side.name, json.dumps(rounds[side.name][-1]), flush=True)
    for side in sides:
        side.stop()
    counted = {name: measured[1:] for name, measured in rounds.items()}
    ratios = {
        name: {key: [own[key] / other[key] for own, other in zip(counted["fairlead"], measured, strict=True)]
               for key in ("rate", "first_median", "first_p95")}
        for name, measured in counted.items() if name != "fairlead"
    }  # fmt: skip
    return {"work": "serve", "clients": clients, "new_tokens": NEW_TOKENS, "rounds": counted, "ratios": ratios}


def round_of(side: Side, clients: int) -> dict[str, Any]:
    """All clients at once, each with a prompt of its own."""
    bodies = [
        {"model": side.model, "stream": True, "temperature": 0, "max_tokens": NEW_TOKENS, "messages": [
            {"role": "user", "content": f"Write a long story about a town with {number} houses."}
        ], **({"stream_options": {"include_usage": True}} if side.usage else {})}
        for number in range(clients)
    ]  # fmt: skip
    found = side.load(bodies=bodies, clients=clients)
    answers = found["answers"]
    tokens = sum(one["tokens"] or one["pieces"] for one in answers)
    return {"seconds": found["seconds"], "statuses": found["statuses"], "tokens": tokens,
            "rate": tokens / found["seconds"], **times(answers)}  # fmt: skip


def times(answers: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Seconds to the first text and in all."""
    first, whole = (sorted(one[key] for one in answers) for key in ("first", "whole"))
    return {
        "first_median": statistics.median(first), "first_p95": first[int(0.95 * (len(first) - 1))],
        "whole_median": statistics.median(whole), "whole_p95": whole[int(0.95 * (len(whole) - 1))],
    }  # fmt: skip


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", choices=("echo", "model"))
    parser.add_argument("--alternations", type=int, default=3)
    parser.add_argument("--clients", type=int, default=CLIENTS)
    parser.add_argument("--output", type=Path, default=BENCH / "results")
    arguments = parser.parse_args()
    load = os.getloadavg()[0]
    result = echo() if arguments.work == "echo" else model(arguments.alternations, arguments.clients)
    result |= {"load_before": load, "environment": environment()}
    path = arguments.output / f"{result['environment']['date']}-{result['work']}.json"
    path.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps({key: value for key, value in result.items() if key != "rounds"}, indent=1))


if __name__ == "__main__":
    main()
