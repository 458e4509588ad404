"""`fairlead reward` on ranked and graded rows: a step against loops over its scores, and what is measured after it."""

import statistics
from itertools import combinations

import pytest

from fairlead.artifacts.manifest import read_manifest
from fairlead.config.stages import RewardConfig
from fairlead.errors import ExitCode, UserError
from fairlead.evaluate.summary import read_evaluation
from fairlead.train import reward
from oracles import losses
from tiny_stages import rows_of, write_rows

WORDS = ("fox", "dog", "Paris", "hello", "today", "fine", "lazy", "brown")
GRADES = {"yes": 9.0, "well": 5.0, "no": 1.0}


def graded(count, kinds=("yes", "well", "no")):
    """Rows whose replies are as good as their first word; their order changes, prompts and lengths differ."""
    rows = []
    for i in range(count):
        order = kinds[i % len(kinds) :] + kinds[: i % len(kinds)]
        replies = [f"{kind} {' '.join(WORDS[: 1 + (i + k) % 3])}" for k, kind in enumerate(order)]
        prompt = f"what is {WORDS[i % len(WORDS)]} {i}"
        rows.append({"prompt": prompt, "responses": replies, "scores": [GRADES[kind] for kind in order]})
    return rows


MIXED = [
    {"prompt": "what is fox", "responses": ["yes fox", "brown dog", "no", "yes"], "scores": [9, 4, 4, 1]},
    {"prompt": "hello", "responses": ["fine", "no"], "scores": [2, 3]},
    {"prompt": "capital of France", "responses": ["Paris", "the dog", "hello"], "scores": [7, 2, 1]},
]


@pytest.fixture
def seen(monkeypatch):
    """(row, its scores) of every row that passes the model in training."""
    found, waiting = [], []
    real_collate, real_losses = reward.collate_ranked, reward.sum_of_losses

    def collate(rows, **more):
        waiting.append(rows)
        return real_collate(rows, **more)

    def sum_of_losses(scores, batch, config):
        values = scores.tolist()
        found.extend((row, [values.pop(0) for _ in row.responses]) for row in waiting.pop())
        assert not values, "every response has one score"
        return real_losses(scores, batch, config)

    monkeypatch.setattr(reward, "collate_ranked", collate)
    monkeypatch.setattr(reward, "sum_of_losses", sum_of_losses)
    return found


def loss_of_row(row, scores, *, margin=0.0, per_score=0.0, centring=0.0):
    """Mean over the pairs of different grade, by the definitions."""
    each = []
    for (better, high), (worse, low) in combinations(zip(scores, row.grades, strict=True), 2):
        if high > low:
            asked = margin + per_score * (high - low)
            each.append(losses.negative_log_sigmoid(better - worse - asked) + centring * (better + worse) ** 2)
    return sum(each) / len(each)


@pytest.mark.parametrize("num_micro_batches", [1, 3])
@pytest.mark.parametrize(
    ("words", "options"),
    [
        ((), {}),
        (("loss=log_exp", "margin=0.5"), {"margin": 0.5}),
        (("margin_per_score=0.7", "margin=0.1"), {"per_score": 0.7, "margin": 0.1}),
        (("centring_coef=0.3",), {"centring": 0.3}),
    ],
)
def test_a_step_equals_the_loop(world, tmp_path, seen, words, options, num_micro_batches):
    """A row counts 1, however many responses it has; grades are scaled over the training responses."""
    data = write_rows(tmp_path / "rows.jsonl", MIXED)
    stage = world.run(
        "reward", tmp_path / "run", f"data.train={data}", "data.held_out_rows=0", "max_steps=1", "batch.rows=3",
        f"batch.num_micro_batches={num_micro_batches}", *words,
    )  # fmt: skip
    (metrics,) = rows_of(stage / "metrics.jsonl")
    assert sorted(len(scores) for _, scores in seen) == [2, 3, 4]
    assert metrics["loss"] == pytest.approx(sum(loss_of_row(*one, **options) for one in seen) / 3, rel=1e-5)
    right = [
        statistics.fmean(a > b for (a, x), (b, y) in combinations(zip(scores, row.grades, strict=True), 2) if x > y)
        for row, scores in seen
    ]
    assert metrics["accuracy"] == pytest.approx(sum(right) / 3)
    if "margin_per_score=0.7" in words:
        everything = [grade for row, _ in seen for grade in row.grades]
        assert (statistics.fmean(everything), statistics.pstdev(everything)) == (
            pytest.approx(0, abs=1e-9),
            pytest.approx(1),
        )
    assert read_evaluation(stage / "evaluation.json").stage.sizes["pairs"] == 5 + 1 + 3


@pytest.mark.parametrize("num_micro_batches", [1, 3])
def test_a_step_of_regression_equals_the_loop(world, tmp_path, seen, num_micro_batches):
    alone = {"prompt": "today", "responses": ["fine"], "scores": [5]}
    data = write_rows(tmp_path / "rows.jsonl", [*MIXED[:2], alone])
    stage = world.run(
        "reward", tmp_path / "run", f"data.train={data}", "data.held_out_rows=0", "max_steps=1", "batch.rows=3",
        "loss=regression", f"batch.num_micro_batches={num_micro_batches}",
    )  # fmt: skip
    (metrics,) = rows_of(stage / "metrics.jsonl")
    given = [9, 4, 4, 1, 3, 2, 5]
    mean, std = statistics.fmean(given), statistics.pstdev(given)
    assert sorted(grade * std + mean for row, _ in seen for grade in row.grades) == pytest.approx(sorted(given))
    each = [statistics.fmean((s - g) ** 2 for s, g in zip(scores, row.grades, strict=True)) for row, scores in seen]
    assert metrics["loss"] == pytest.approx(sum(each) / 3, rel=1e-5)
    facts = read_manifest(stage).facts
    assert (facts["grade_mean"], facts["grade_std"]) == (pytest.approx(mean), pytest.approx(std))


def test_one_graded_response_a_row_has_no_accuracy(world, tmp_path):
    rows = [{"prompt": row["prompt"], "response": row["responses"][0], "score": row["scores"][0]} for row in graded(30)]
    data = write_rows(tmp_path / "rows.jsonl", rows)
    stage = world.run(
        "reward",
        tmp_path / "run",
        f"data.train={data}",
        "data.held_out_rows=6",
        "loss=regression",
        "eval_every_steps=1",
    )
    metrics = rows_of(stage / "metrics.jsonl")
    assert all("accuracy" not in row for row in metrics)
    assert all(-1 <= row["held_out_correlation/English replies"] <= 1 for row in metrics)
    evaluation = read_evaluation(stage / "evaluation.json")
    assert not evaluation.preferences
    assert evaluation.grades[0].num_responses == 6
    with pytest.raises(UserError, match="no response is ranked above another"):
        world.run("reward", tmp_path / "ranked", f"data.train={data}")


def test_regression_learns_the_scores(world, tmp_path):
    data = write_rows(tmp_path / "rows.jsonl", graded(40))
    stage = world.run(
        "reward", tmp_path / "run", f"data.train={data}", "loss=regression", "num_epochs=8", "data.held_out_rows=8"
    )
    (measured,) = read_evaluation(stage / "evaluation.json").grades
    assert measured.num_responses == 24
    assert measured.pearson > 0.8
    assert measured.spearman > 0.8
    assert measured.mean_squared_error < 0.5
    (accuracy,) = read_evaluation(stage / "evaluation.json").preferences
    assert (accuracy.num_pairs, accuracy.accuracy > 0.8) == (24, True)


def test_scores_that_are_all_the_same_are_refused(world, tmp_path):
    data = write_rows(tmp_path / "rows.jsonl", graded(6, kinds=("yes",)))
    with pytest.raises(UserError, match="every training response has the same score") as caught:
        world.run("reward", tmp_path / "run", f"data.train={data}", "loss=regression")
    assert caught.value.exit_code == ExitCode.BAD_DATA


@pytest.mark.parametrize("option", ["margin", "margin_per_score", "centring_coef"])
def test_options_of_pairs_have_no_meaning_for_regression(option):
    with pytest.raises(ValueError, match=f"reward.{option} has no meaning"):
        RewardConfig.model_validate({"loss": "regression", option: 0.5})


def test_margins_by_score_need_scores(world, tmp_path):
    with pytest.raises(UserError, match="the responses have no scores"):
        world.run("reward", tmp_path, "margin_per_score=1")


def test_a_normalised_head_starts_at_mean_0_and_variance_1(world, tmp_path, seen):
    for option in ("true", "false"):
        world.run("reward", tmp_path / option, f"normalise_head={option}", "batch.rows=20", "data.held_out_rows=0",
                  "max_steps=1")  # fmt: skip
    normalised, plain = (
        [score for _, scores in rows for score in scores] for rows in (seen[:20], seen[20:])
    )  # each row is scored once in the only step
    assert (statistics.fmean(normalised), statistics.pstdev(normalised)) == (
        pytest.approx(0, abs=1e-4),
        pytest.approx(1, rel=1e-4),
    )
    assert abs(statistics.fmean(plain)) > 1e-2
