"""A checkpoint never points behind the end of a journal: lines are durable before the checkpoint gets its name."""

from pathlib import Path

from fairlead.artifacts.journal import Journal
from fairlead.train import stage as stage_module


def test_journals_are_flushed_before_the_state_is_saved(world, tmp_path, monkeypatch):
    log = []
    flush, save = Journal.flush, stage_module.save_state
    monkeypatch.setattr(Journal, "flush", lambda journal: (log.append(journal.path.stem), flush(journal))[1])

    def save_and_note(folder, step, tensors, numbers, sizes, **options):
        log.append(("save", dict(sizes)))
        on_disk = {name: (Path(folder) / f"{name}.jsonl").stat().st_size for name in sizes}
        assert sizes == on_disk
        save(folder, step, tensors, numbers, sizes, **options)

    monkeypatch.setattr(stage_module, "save_state", save_and_note)
    world.run("sft", tmp_path, "checkpoint.every_steps=2")
    first = next(i for i, entry in enumerate(log) if isinstance(entry, tuple))
    assert {"metrics", "samples"} <= set(log[:first])
    assert log[first][1]["metrics"] > 0
