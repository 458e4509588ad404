"""The loop of rankings on real input: answers, rankings over HTTP, a reward model, DPO, answers again.

    python experiments/loop_of_rankings.py FOLDER --rankings 200 --held-out 100

Prompts are starter rows, answers the starter model's. A scripted annotator ranks them through the pages' interface of a
real server: the larger the share of "the" among an answer's words, the better; what is close is a tie. No rule about
lengths of answers must explain that. Then a reward model has to find the preference in held-out rankings, made the
same way with other prompts, and DPO has to move the model that way on those prompts. What is there already is not made
again.
"""

import argparse
import http.client
import json
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise, permutations
from pathlib import Path

import numpy as np
from sqlalchemy import select

from fairlead.algos.intervals import bootstrap_mean
from fairlead.data.load import read_prompts
from fairlead.data.starter import dataset_path
from fairlead.feedback.accounts import all_users
from fairlead.feedback.comparisons import answers_of_all
from fairlead.feedback.schema import comparisons
from fairlead.feedback.store import open_store
from fairlead.models.loading import load_tokenizer
from fairlead.runtime.environment import cache_folder

MODEL, ANSWERS, TOKENS, LONGEST_PROMPT = "smollm2-135m-instruct", 4, 64, 300
DPO_ROWS = 60  # rankings: all of them would take an hour
CLOSE = 0.03
PASSWORD = "a password of the experiment"  # noqa: S105
COOKIE = "fairlead_session"


def liking(text: str) -> float:
    """How much the annotator likes an answer: the share of "the" among its words."""
    words = re.findall(r"[a-z']+", text.lower())
    return words.count("the") / max(1, len(words))


def ranks_of(likings: Sequence[float]) -> list[int]:
    """1 is best; neighbours in the order that are less than CLOSE apart are tied."""
    order = sorted(range(len(likings)), key=lambda place: -likings[place])
    ranks = [1] * len(likings)
    for better, worse in pairwise(order):
        ranks[worse] = ranks[better] + (likings[better] - likings[worse] > CLOSE)
    return ranks


def main() -> None:
    """Walk the loop and print its figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rankings", type=int, default=200)
    parser.add_argument("--held-out", type=int, default=100)
    given = parser.parse_args()
    folder = given.folder
    folder.mkdir(parents=True, exist_ok=True)
    counts = {"train": given.rankings, "held_out": given.held_out}
    write_prompts(folder, counts)
    for part, count in counts.items():
        compare(folder, part, MODEL, part, count)
        with server(folder, part) as address:
            done = rank(address, *invited(folder, part))
        print(f"{part}: {done['mine']} rankings over HTTP, {done['finished']} of {done['total']} comparisons finished")
        tell_labels(part, answers_in(folder / f"{part}.db"))
    run = folder / "run"
    labels = ("--data", f"feedback:{folder / 'train.db'}", "--data.held-out", f"feedback:{folder / 'held_out.db'}")
    if not (run / "01-reward" / "manifest.json").exists():
        fairlead("reward", *labels, "--num-epochs", 4, "--batch.rows", 8, "--optim.lr", "5e-4", "--output", run)
    tell_reward(run / "01-reward")
    if not (run / "02-dpo" / "manifest.json").exists():
        sizes = ("--data.max-rows", DPO_ROWS, "--num-epochs", 1, "--batch.rows", 8)
        fairlead("dpo", *labels, *sizes, "--optim.lr", "2e-4", "--output", run)
    compare(folder, "after", f"after={run / '02-dpo'}", "held_out", given.held_out)
    tell_change(answers_in(folder / "held_out.db"), answers_in(folder / "after.db"))


def write_prompts(folder: Path, counts: dict[str, int]) -> None:
    """Short starter prompts, each once; a tenth more than are to be ranked, for those that get an answer twice."""
    if all((folder / f"{part}.jsonl").exists() for part in counts):
        return
    rows = read_prompts([dataset_path("alpaca_en_demo", cache_folder())], max_reject_rate=1.0).records
    short = list(dict.fromkeys(row.messages for row in rows if len(row.messages[-1].content) < LONGEST_PROMPT))
    for part, count in counts.items():
        some, short = short[: count + count // 10], short[count + count // 10 :]
        lines = [{"messages": [{"role": one.role, "content": one.content} for one in messages]} for messages in some]
        (folder / f"{part}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def fairlead(*words: object) -> str:
    """Run a command; what it printed."""
    command = [sys.executable, "-m", "fairlead", *map(str, words)]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def compare(folder: Path, store: str, model: str, prompts: str, count: int) -> None:
    """Put answers of a model to these prompts into a store."""
    said = fairlead(
        "feedback", "compare", folder / f"{store}.db", "--data", folder / f"{prompts}.jsonl", "--models", model,
        "--answers", ANSWERS, "--comparisons", count, "--sampling.max-new-tokens", TOKENS,
    )  # fmt: skip
    print(said.splitlines()[-1], flush=True)


def invited(folder: Path, part: str) -> tuple[str, str]:
    """Name and one-time password of a new annotator."""
    store = open_store(str(folder / f"{part}.db"))
    number = len(all_users(store))
    store.close()
    name = f"annotator{number}"
    said = fairlead("feedback", "invite", folder / f"{part}.db", name)
    return name, said.strip().rpartition(" ")[2]


@contextmanager
def server(folder: Path, part: str) -> Iterator[str]:
    """A server process over a store; its host and port."""
    words = ["--models", "[]", "--echo", "true", "--port", "0", "--store", str(folder / f"{part}.db")]
    command = [sys.executable, "-m", "fairlead", "serve", *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            found = (re.search(r"http://([\d.]+:\d+)", line) for line in process.stdout)
            yield next(match[1] for match in found if match)
        finally:
            process.terminate()


def rank(address: str, name: str, password: str) -> dict[str, int]:
    """Log in, rank until nothing is left, and say how far it went."""
    client = Client(address)
    client.log_in(name, password)
    while task := client.ask("GET", "/api/tasks/next")["task"]:
        order = ranks_of([liking(one["content"]) for one in task["answers"]])
        ranks = {str(one["id"]): rank for one, rank in zip(task["answers"], order, strict=True)}
        verdict = {"outcome": "ranked", "ranks": ranks, "grades": {}, "reason": "", "seconds": 1}
        number = task["comparison"]
        client.ask("POST", f"/api/comparisons/{number}/rankings", verdict | {"key": f"ranking-{number}"})
    return client.ask("GET", "/api/progress")


class Client:
    """A browser without a page."""

    def __init__(self, address: str) -> None:
        self._address, self._headers = address, {"content-type": "application/json"}

    def log_in(self, name: str, password: str) -> None:
        """Change the one-time password, and keep the session."""
        me = self.ask("POST", "/api/login", {"name": name, "password": password, "new_password": PASSWORD})
        self._headers["x-csrf-token"] = me["csrf"]

    def ask(self, method: str, path: str, body: dict | None = None) -> dict:
        """The answer; a refusal ends the experiment."""
        connection = http.client.HTTPConnection(self._address, timeout=60)
        connection.request(method, path, json.dumps(body) if body else None, self._headers)
        answer = connection.getresponse()
        said = json.loads(answer.read())
        if cookie := answer.headers.get("set-cookie"):
            self._headers["cookie"] = cookie.partition(";")[0]
        connection.close()
        if answer.status >= 400:
            sys.exit(f"{method} {path}: {answer.status} {said}")
        return said


def answers_in(store: Path) -> dict[str, list[str]]:
    """What was answered, by the prompt's digest."""
    opened = open_store(str(store))
    with opened.read() as connection:
        rows = connection.execute(select(comparisons.c.id, comparisons.c.prompt_sha256))
        prompts = {row.id: row.prompt_sha256 for row in rows}
        given = answers_of_all(connection)
    opened.close()
    return {prompts[number]: [row["content"] for row in rows] for number, rows in given.items()}


def tell_labels(part: str, answers: dict[str, list[str]]) -> None:
    """How many pairs have an order, and how well the best rule that looks at the length alone finds it."""
    ranked = [list(zip(ranks_of(list(map(liking, texts))), texts, strict=True)) for texts in answers.values()]
    pairs = [
        (better, worse) for one in ranked for (first, better), (second, worse) in permutations(one, 2) if first < second
    ]
    decided = sum(len({rank for rank, _ in one}) > 1 for one in ranked)
    tokens = load_tokenizer(MODEL)
    units = {
        "characters": len, "words": lambda text: len(text.split()),
        "tokens": lambda text: len(tokens(text, add_special_tokens=False)["input_ids"]),
    }  # fmt: skip
    for unit, size in units.items():
        lengths = [(size(better), size(worse)) for better, worse in pairs]
        print(
            f"{part}: {len(pairs)} pairs of {decided} decided rankings; by the number of {unit}: the longer wins "
            f"{longer_wins(lengths):.1%}, the best length-only rule is right on {best_length_rule(lengths):.1%}"
        )


def longer_wins(pairs: Sequence[tuple[int, int]]) -> float:
    """The share of pairs whose better one is longer; equal lengths are half."""
    return sum((one > other) + (one == other) / 2 for one, other in pairs) / len(pairs)


def best_length_rule(pairs: Sequence[tuple[int, int]]) -> float:
    """The share that the best of these is right on: longer wins, or at least so long wins; each also turned round."""
    thresholds = sorted({length for pair in pairs for length in pair})
    at_least = [longer_wins([(one >= least, other >= least) for one, other in pairs]) for least in thresholds]
    return max(max(share, 1 - share) for share in (longer_wins(pairs), *at_least))


def tell_reward(stage: Path) -> None:
    """How often the reward model puts the better one of a held-out pair first."""
    for one in json.loads((stage / "evaluation.json").read_text())["preferences"]:
        print(
            f"reward model, {one['name']}: right on {one['accuracy']:.1%} of {one['num_pairs']} held-out pairs "
            f"({one['low']:.1%} to {one['high']:.1%})"
        )


def tell_change(before: dict[str, list[str]], after: dict[str, list[str]]) -> None:
    """How much the annotator likes the answers, on the same prompts with the same seeds."""
    shared = sorted(before.keys() & after.keys())
    shares = {
        name: np.array([np.mean(list(map(liking, texts[prompt]))) for prompt in shared])
        for name, texts in (("before", before), ("after", after))
    }
    for name, share in shares.items():
        low, high = bootstrap_mean(share, seed=0)
        print(f"{name}: {share.mean():.2%} of the words are 'the' ({low:.2%} to {high:.2%}), {len(shared)} prompts")
    gain = shares["after"] - shares["before"]
    low, high = bootstrap_mean(gain, seed=0)
    words = {
        name: np.mean([len(text.split()) for prompt in shared for text in texts[prompt]])
        for name, texts in (("before", before), ("after", after))
    }
    print(
        f"difference {gain.mean():+.2%} ({low:+.2%} to {high:+.2%}, bootstrap over prompts); "
        f"more for {np.mean(gain > 0):.0%} of the prompts, fewer for {np.mean(gain < 0):.0%}"
    )
    print(f"words per answer: {words['before']:.1f} before, {words['after']:.1f} after")


if __name__ == "__main__":
    main()
