"""The rows of the training works, in groups of one optimizer step each, the same for both sides.

    python bench/rows.py sft          # conversations, as they stand in alpaca_en_demo
    python bench/rows.py pairs        # preference pairs of dpo_en_demo
    python bench/rows.py responses    # both responses of those pairs, as conversations of their own

Only rows that are whole within 512 tokens are taken, in the order of the file. bench/.cache/NAME/rows.json holds them
for fairlead, laid so that its shuffle of the first epoch puts each group back together; steps.json holds the tokens of
each step in fairlead's own encoding, for a peer that knows nothing of fairlead.
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from setting import DEVICE, MODEL, RUNTIME

from fairlead.config.common import BatchConfig, DataConfig, ModelConfig, OptimConfig, RuntimeConfig
from fairlead.config.stages import DpoConfig, EpochsConfig, RewardConfig, SftConfig
from fairlead.data.examples import Example, PairExample
from fairlead.data.pack import pack
from fairlead.data.sampler import epoch_order
from fairlead.data.starter import resolve_paths
from fairlead.models.build import add_trainable
from fairlead.models.roles import Roles
from fairlead.runtime.environment import cache_folder
from fairlead.runtime.start import start
from fairlead.train.rows import (
    encoder_of,
    load_conversations,
    load_preferences,
    padding_token,
    policy_source,
)

CACHE = Path(__file__).parent / ".cache"
DATASET = {"sft": "alpaca_en_demo", "pairs": "dpo_en_demo", "responses": "dpo_en_demo"}
ROWS_PER_STEP = {"sft": 16, "pairs": 16, "responses": 32}
NUM_STEPS = 6  # a warm-up and five alternations; the dataset has no more than 96 pairs of such lengths
LONGEST = 512  # tokens of a sequence; fairlead's default
BIN, BINS = 1024, 4  # TRL packs every group of `sft` into as many bins of its default length
MICRO_BATCH_TOKENS = {"cpu": 2048, "cuda": 8192}  # fairlead's default; a GPU takes a whole step at once
STAGES = {"sft": SftConfig, "reward": RewardConfig, "dpo": DpoConfig}


def config_of(stage: str, rows: str, output: str) -> EpochsConfig:
    """A real run of the stage on these rows; what is not said here is fairlead's default."""
    return STAGES[stage](
        output=output, model=ModelConfig(name=MODEL, tuning="full"), num_epochs=1,
        batch=BatchConfig(rows=ROWS_PER_STEP[rows], micro_batch_tokens=MICRO_BATCH_TOKENS[DEVICE]),
        data=DataConfig(train=(str(CACHE / rows / "rows.json"),), held_out_rows=0, max_length=LONGEST),
        optim=OptimConfig(lr=1e-6, schedule="constant"), runtime=RUNTIME,
    )  # fmt: skip


def steps_of(rows: str) -> dict[str, Any]:
    """What was written for these rows."""
    return json.loads((CACHE / rows / "steps.json").read_text())


def main() -> None:
    """Write what is asked for."""
    for name in sys.argv[1:]:
        write(name)


def write(name: str) -> None:
    """Both files of these rows."""
    size, folder = ROWS_PER_STEP[name], CACHE / name
    folder.mkdir(parents=True, exist_ok=True)
    rows = _short_rows(name)
    groups = [rows[first : first + size] for first in range(0, len(rows) - size + 1, size)]
    picked = [row for group in [g for g in groups if _fills_bins(name, g)][:NUM_STEPS] for row in group]
    assert len(picked) == size * NUM_STEPS, "there are too few rows"
    order = epoch_order(len(picked), seed=RuntimeConfig().seed, epoch=0)
    records = dict(zip(order, (record for record, _ in picked), strict=True))
    (folder / "rows.json").write_text(json.dumps([records[place] for place in range(len(order))]))

    config = config_of("reward" if name == "pairs" else "sft", name, "")
    source = policy_source(config.model, LONGEST)
    encoded = _encoded(name, config.data)
    trained = [encoded[place] for place in order]
    for ours, (_, wanted) in zip(trained, picked, strict=True):
        for got, sequence in zip(_sequences(ours), _sequences(wanted), strict=True):
            assert got[: len(sequence)] == sequence, "another order"  # a conversation may end in one line break more
    steps = [_step(trained[first : first + size]) for first in range(0, len(trained), size)]
    about = {
        "model": str(source.base.folder),
        "padding_token": padding_token(encoder_of(source).template),
        "steps": steps,
    }
    if name == "pairs":
        about["score_head"] = _score_head(config)
    (folder / "steps.json").write_text(json.dumps(about))


def _short_rows(name: str) -> list[tuple[dict[str, Any], Example | PairExample]]:
    """The dataset's rows that stay whole, as they stand there and as fairlead encodes them."""
    (path,) = resolve_paths([DATASET[name]], cache_folder())
    data = DataConfig(train=(str(path),), held_out_rows=0, max_length=4096, max_reject_rate=1.0)
    records = json.loads(path.read_text(encoding="utf-8"))
    rows = _encoded("sft" if name == "sft" else "pairs", data)
    short = [(records[_line(row)], row) for row in rows if max(map(len, _sequences(row))) <= LONGEST]
    if name != "responses":
        return short
    return [
        ({"conversations": [*record["conversations"], record[side]]}, getattr(row, side))
        for record, row in short
        for side in ("chosen", "rejected")
    ]


def _encoded(name: str, data: DataConfig) -> Sequence[Example] | Sequence[PairExample]:
    encoder = encoder_of(policy_source(ModelConfig(name=MODEL), LONGEST))
    if name == "pairs":
        return load_preferences(data, encoder, end_token=True, rejects=None, seed=RuntimeConfig().seed).train
    return load_conversations(data, encoder, rejects=None, seed=RuntimeConfig().seed).train


def _fills_bins(name: str, group: Sequence[tuple[dict[str, Any], Any]]) -> bool:
    return name != "sft" or len(pack([len(row.input_ids) for _, row in group], BIN)) == BINS


def _step(rows: Sequence[Any]) -> dict[str, Any]:
    """`tokens` are those of all sequences; `tokens_once` counts a prompt once that both responses share."""
    shared = [row.chosen.trained.index(True) for row in rows if isinstance(row, PairExample)]
    tokens = sum(len(sequence) for row in rows for sequence in _sequences(row))
    examples = [_side(row) if isinstance(row, Example) else [_side(row.chosen), _side(row.rejected)] for row in rows]
    return {"rows": len(rows), "tokens": tokens, "tokens_once": tokens - sum(shared), "examples": examples}


def _side(example: Example) -> dict[str, list[int]]:
    return {"input_ids": list(example.input_ids), "trained": list(map(int, example.trained))}


def _sequences(row: Example | PairExample) -> list[tuple[int, ...]]:
    return [row.input_ids] if isinstance(row, Example) else [row.chosen.input_ids, row.rejected.input_ids]


def _line(row: Example | PairExample) -> int:
    source = row.source if isinstance(row, Example) else row.chosen.source
    return int(source.rpartition(":")[2]) - 1


def _score_head(config: EpochsConfig) -> list[list[float]]:
    """The new score layer, as `train_reward` draws it."""
    runtime = start(config.runtime)
    source, roles = policy_source(config.model, LONGEST), Roles()
    add_trainable(roles, "reward", source, "scores", config.model, runtime, dropout=0.0)
    return roles.head("reward").weight.tolist()


if __name__ == "__main__":
    main()
