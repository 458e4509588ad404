"""Weights of several files: how much of every epoch each gives, in every trainer."""

from collections import Counter

import pytest

from fairlead.config.common import DataConfig
from fairlead.config.online import PromptsConfig
from fairlead.errors import UserError
from fairlead.models.sources import resolve
from fairlead.train.rows import encoder_of, load_conversations, load_preferences, load_tasks
from tiny_stages import ROWS_OF, TRAINERS, rows_of, write_rows


@pytest.fixture(scope="module")
def files(world, tmp_path_factory):
    """Two files of each kind, the first with a third of the rows."""
    folder = tmp_path_factory.mktemp("files")

    def halves(rows):
        cut = len(rows) // 3
        return [
            str(write_rows(folder / f"{len(rows)}-{len(list(folder.iterdir()))}.jsonl", part))
            for n, part in enumerate((rows[:cut], rows[cut:]))
        ]

    return {kind: halves(rows_of(getattr(world, kind))) for kind in ("conversations", "preferences", "judgements")}


def kind_of(trainer):
    return ROWS_OF.get(trainer, "conversations")


@pytest.mark.parametrize("trainer", TRAINERS)
def test_weights_change_what_a_trainer_sees(world, files, tmp_path, trainer, capsys):
    seen = []
    for name, words in (("plain", ()), ("even", ("data.weights=1,1",)), ("other", ("data.weights=3,1",))):
        train = f"data.train={','.join(files[kind_of(trainer)])}"
        stage = world.run(trainer, tmp_path / name, train, *words)
        seen.append([row["tokens"] for row in rows_of(stage / "metrics.jsonl")])
    assert len(set(map(tuple, seen))) == 3
    assert len(set(map(len, seen))) == 1, "an epoch has as many rows as before"
    assert f"{files[kind_of(trainer)][0]}: every epoch draws" in capsys.readouterr().err


def test_an_epoch_holds_the_files_in_proportion(world, files):
    """Read by every reader that a trainer has; rows say which file they come from, where they say it."""
    encoder = encoder_of(resolve(str(world.model)))
    options = {"rejects": None, "seed": 3}
    data = DataConfig(train=tuple(files["conversations"]), weights=(3.0, 1.0), held_out_rows=4)
    rows = load_conversations(data, encoder, **options)
    drawn = Counter(rows.train[i].source.partition(":")[0] for i in rows.mixture.epoch(seed=3, epoch=0))
    assert drawn == {files["conversations"][0]: 15, files["conversations"][1]: 5}
    prompts = PromptsConfig(train=data.train, weights=data.weights)
    assert load_tasks(prompts, encoder, **options).mixture.shares == [18, 6]
    pairs = DataConfig(train=tuple(files["preferences"]), weights=(1.0, 1.0), held_out_rows=0)
    rows = load_preferences(pairs, encoder, end_token=True, **options)
    drawn = Counter(rows.train[i].chosen.source.partition(":")[0] for i in rows.mixture.epoch(seed=3, epoch=0))
    assert drawn == dict.fromkeys(files["preferences"], 10)


def test_a_weight_for_each_entry():
    with pytest.raises(ValueError, match=r"2 numbers for the 1 entries of data\.train"):
        DataConfig(train=("a",), weights=(1.0, 2.0))
    with pytest.raises(ValueError, match="greater than 0"):
        DataConfig(train=("a", "b"), weights=(1.0, 0.0))


def test_a_file_that_has_no_row_to_give_is_told(world, files, tmp_path):
    first, second = files["conversations"]
    with pytest.raises(UserError, match="no usable row is left of one of the files") as caught:
        world.run("sft", tmp_path, f"data.train={first},{second}", "data.weights=1,1", f"data.held_out={second}")
    assert second in str(caught.value)
