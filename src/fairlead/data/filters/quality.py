"""A small classifier of good and bad texts: logistic regression on hashed runs of one to three words.

A word is a token as in `shingles.py`, so in Chinese the runs are of characters. Every text is a vector of length 1 of
the square roots of how often each run stands in it; good and bad weigh the same, however many there are of each. The
same texts, in whatever order, give the same model up to the rounding of sums.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fairlead.config.filters import QualityConfig
from fairlead.data.filters.outcome import Dropped, Kept
from fairlead.data.filters.texts import main_texts
from fairlead.data.load import read_records
from fairlead.data.shingles import hash_tokens, runs_of
from fairlead.errors import ExitCode, UserError
from fairlead.records import Record, Rejection

NUM_BUCKETS = 1 << 18
MIN_EXAMPLES = 20  # of each kind: with fewer the held-out fifth says nothing
_WIDTHS = (1, 2, 3)
_NUM_STEPS, _RATE, _DECAY = 200, 0.1, 3e-4

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class QualityModel:
    """Weights by bucket, and what share of held-out examples it tells right, good and bad counting the same."""

    weights: Floats
    bias: float
    accuracy: float
    num_held_out: int

    def score(self, text: str) -> float:
        """Probability that the text is good."""
        return float(_sigmoid(_logits(_features([text]), self.weights, self.bias))[0])


@dataclass(frozen=True, slots=True)
class Quality:
    """The step: drops a record with an answer that scores below the limit. `model` tells how good it is itself."""

    model: QualityModel
    min_score: float

    def __call__(self, record: Record) -> Kept | Dropped:
        """Keep or drop one record."""
        if all(self.model.score(text) >= self.min_score for text in main_texts(record)):
            return Kept(record)
        return Dropped(f"quality below {self.min_score:g}")


def quality(config: QualityConfig) -> Quality:
    """The step with its classifier, trained on the files of the configuration.

    Raises UserError for files that cannot be used, and where the classifier is not good enough to drop anything.
    """
    good, bad = (
        dict.fromkeys(text for file in files for text in _texts(Path(file))) for files in (config.good, config.bad)
    )
    model = trained([text for text in good if text not in bad], [text for text in bad if text not in good], config.seed)
    if model.accuracy < config.min_accuracy:
        raise UserError(
            "the quality classifier cannot tell good from bad",
            where="filters.quality",
            got=f"accuracy {model.accuracy:.3f} on {model.num_held_out} held-out examples",
            want=f"at least {config.min_accuracy:g}",
            fix="give more examples, or such that differ more; or lower filters.quality.min_accuracy",
            exit_code=ExitCode.BAD_DATA,
        )
    return Quality(model, config.min_score)


def trained(good: Sequence[str], bad: Sequence[str], seed: int) -> QualityModel:
    """A classifier from four fifths of the texts, its accuracy on the rest. Which is which hangs on text and seed."""
    texts = [*good, *bad]
    labels = np.array([1.0] * len(good) + [0.0] * len(bad))
    held_out = np.array([_is_held_out(text, seed) for text in texts], dtype=bool)
    for name, label in (("good", 1.0), ("bad", 0.0)):
        count, tested = int((labels == label).sum()), int(held_out[labels == label].sum())
        if count < MIN_EXAMPLES or tested in (0, count):
            raise UserError(
                f"there are too few {name} examples",
                where=f"filters.quality.{name}",
                got=f"{count} different texts",
                want=f"at least {MIN_EXAMPLES}",
                fix="give more of them",
                exit_code=ExitCode.BAD_DATA,
            )
    training, test = (
        [text for text, out in zip(texts, held_out, strict=True) if out == side] for side in (False, True)
    )
    weights, bias = _fit(_features(training), labels[~held_out])
    right = (_logits(_features(test), weights, bias) > 0) == (labels[held_out] == 1.0)
    by_label = [right[labels[held_out] == label].mean() for label in (1.0, 0.0)]
    return QualityModel(weights, bias, float(np.mean(by_label)), len(test))


@dataclass(frozen=True, slots=True)
class _Features:
    """The non-zero entries of a matrix of texts by buckets."""

    rows: Ints
    columns: Ints
    values: Floats
    num_rows: int


def _features(texts: Sequence[str]) -> _Features:
    rows, columns, values = [], [], []
    tokens = hash_tokens(texts)
    for row in range(len(texts)):
        runs = np.concatenate([runs_of(tokens.of(row), width) for width in _WIDTHS])
        buckets, counts = np.unique(runs % np.uint64(NUM_BUCKETS), return_counts=True)
        rows.append(np.full(len(buckets), row, dtype=np.int64))
        columns.append(buckets.astype(np.int64))
        values.append(np.sqrt(counts / max(len(runs), 1)))
    return _Features(np.concatenate(rows), np.concatenate(columns), np.concatenate(values), len(texts))


def _fit(features: _Features, labels: Floats) -> tuple[Floats, float]:
    """Adam (Kingma & Ba 2015) on all examples at once; the loss is convex, so where it starts does not matter."""
    share = labels.mean()
    importance = np.where(labels == 1.0, 0.5 / share, 0.5 / (1 - share)) / len(labels)
    used, columns = np.unique(features.columns, return_inverse=True)  # the weights of the others stay 0
    features = replace(features, columns=columns)
    state = np.zeros(len(used) + 1)  # the last is the bias
    first, second = np.zeros_like(state), np.zeros_like(state)
    for step in range(1, _NUM_STEPS + 1):
        errors = importance * (_sigmoid(_logits(features, state[:-1], state[-1])) - labels)
        gradient = np.empty_like(state)
        weighted = errors[features.rows] * features.values
        gradient[:-1] = np.bincount(features.columns, weighted, len(used)) + _DECAY * state[:-1]
        gradient[-1] = errors.sum()
        first = 0.9 * first + 0.1 * gradient
        second = 0.999 * second + 0.001 * gradient**2
        state -= _RATE * (first / (1 - 0.9**step)) / (np.sqrt(second / (1 - 0.999**step)) + 1e-8)
    weights = np.zeros(NUM_BUCKETS)
    weights[used] = state[:-1]
    return weights, float(state[-1])


def _logits(features: _Features, weights: Floats, bias: float) -> Floats:
    sums = np.bincount(features.rows, weights[features.columns] * features.values, features.num_rows)
    return sums.astype(np.float64) + bias


def _sigmoid(logits: Floats) -> Floats:
    return 0.5 * (1 + np.tanh(logits / 2))


def _is_held_out(text: str, seed: int) -> bool:
    return hashlib.sha256(f"{seed}\n{text}".encode("utf-8", "surrogatepass")).digest()[0] % 5 == 0


def _texts(path: Path) -> list[str]:
    """The texts of one file: a line each, or what a model would learn from its rows."""
    if path.suffix == ".txt":
        try:
            return [line for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
        except (OSError, UnicodeDecodeError) as error:
            what = f"the file cannot be read ({error})"
            raise UserError(what, where=str(path), fix="check it", exit_code=ExitCode.MISSING_INPUT) from error
    records = [row for row in read_records(path) if not isinstance(row, Rejection)]
    if not records:
        what, fix = "no row can be used", "give rows in a known layout, or a .txt file with a text a line"
        raise UserError(what, where=str(path), fix=fix, exit_code=ExitCode.BAD_DATA)
    return [text for record in records for text in main_texts(record)]
