"""What can be refused before torch is loaded: wrong paths, wrong rows, the wrong kind of artifact, no room.

The stages check all of this again; here the answer comes in a tenth of a second, and for every stage of a journey
before its first one starts. What a journey makes itself (`@stage`) is checked with its recipe.
"""

import shlex
from collections.abc import Collection, Sequence
from pathlib import Path

from fairlead.artifacts.atomic import require_folder
from fairlead.artifacts.lock import require_free
from fairlead.artifacts.manifest import Kind, is_begun, read_manifest, require_kind
from fairlead.artifacts.model_folder import check_model_folder, may_be_hub_id
from fairlead.artifacts.stages import is_finished, is_run, is_taken, list_runs, policy_of, stage_folder
from fairlead.config.chat import ChatConfig
from fairlead.config.common import RowKind, RowsConfig
from fairlead.config.compare import CompareConfig
from fairlead.config.grow import GrowConfig
from fairlead.config.journey import STAGES, JourneyConfig, models_of, rows_of
from fairlead.config.refine import RefineConfig
from fairlead.config.replies import RepliesConfig
from fairlead.config.section import Section
from fairlead.config.serve import ServeConfig
from fairlead.config.stages import EvalConfig, StageConfig
from fairlead.data.load import READERS, read_prompts, read_records
from fairlead.data.sources import expand
from fairlead.data.starter import STARTER_DATASETS, STARTER_MODELS, model_path, resolve_paths
from fairlead.data.streams import on_disk
from fairlead.errors import ExitCode, UserError
from fairlead.feedback import PREFIX
from fairlead.runtime.environment import cache_folder, is_first_rank, secret
from fairlead.synthesize.judge import question_text

SMALL_BYTES = 16_000_000  # rows up to this size are read here, larger files only by the stage itself
ROOM_BYTES = 32_000_000  # what any run writes: logs, a report, checkpoints of a small adapter

_ROWS = {"split": "sources", "eval": "prompts"}  # what most often says which rows; else data.train


def check_stage(verb: str, config: StageConfig | RepliesConfig) -> None:
    """Raise the UserError that the stage would raise later, if there is one."""
    _check_models(config)
    require_folder(Path(config.output), ROOM_BYTES)
    folder = stage_folder(Path(config.output), verb)
    if is_first_rank():
        require_free(folder)
    if not config.data.train:
        raise _no_rows("data.train", f"fairlead {verb} --data FILE")
    _check_rows(config, rejects=folder / "rejects.jsonl" if is_first_rank() and not is_taken(folder) else None)
    if isinstance(config, RepliesConfig):
        _check_judge(config)


def check_grow(config: GrowConfig) -> None:
    """As `check_stage`."""
    if config.model:
        check_model(config.model, ("policy",), "model")
    require_folder(Path(config.output), ROOM_BYTES)
    if is_first_rank():
        require_free(stage_folder(Path(config.output), "grow"))
    if not config.data:
        raise _no_rows("data", "fairlead data grow --data FILE")
    if _small(config.data, "prompts"):
        read_prompts(resolve_paths(config.data, cache_folder(), "prompts"), **config.reading)
    secret(config.author.api_key_variable)


def check_refine(config: RefineConfig) -> None:
    """As `check_stage`: a file that cannot be read with these options is named before the stage is begun with them."""
    if _small(config.data, texts=True):
        options = {"columns": config.reading["columns"], "encoding": config.reading["encoding"]}
        for path in expand(resolve_paths(config.data, cache_folder()), texts=True):
            read_records(path, **options)


def check_eval(config: EvalConfig) -> None:
    """As `check_stage`."""
    _check_models(config)
    model = shlex.quote(config.model)
    if is_reward(config.model) and (config.conversations or config.prompts or not config.preferences):
        raise UserError(
            f"{config.model} is a reward model, which is measured on preferences alone", where="command line",
            fix=f"fairlead eval {model} --preferences HELD_OUT_PAIRS.jsonl",
        )  # fmt: skip
    if not any(files for _, files, _ in rows_of(config)):
        raise UserError(
            "there is nothing to measure on", where="command line", want="conversations, preferences or prompts",
            fix=f"fairlead eval {model} --conversations HELD_OUT.jsonl",
        )  # fmt: skip
    if config.output:
        require_folder(Path(config.output), ROOM_BYTES)
    _check_rows(config)


def check_chat(config: ChatConfig) -> None:
    """As `check_stage`."""
    check_model(config.model, ("policy",), "model")


def check_serve(config: ServeConfig) -> dict[str, str]:
    """As `check_stage`; the models by the names that clients give them."""
    names = _named_models(config.models)
    if config.echo and "echo" in names:
        raise UserError("two models would have one name", where="models", got="echo", fix="write NAME=MODEL")
    secret(config.api_key_variable)
    return names


def check_compare(config: CompareConfig) -> dict[str, str]:
    """As `check_stage`; the models by the names that the store gives them."""
    names = _named_models(config.models)
    for name in config.reward_models:
        require_kind(Path(name), ("reward",), wanted_for="reward")
    if not config.data:
        raise _no_rows("data", "fairlead feedback compare STORE --data FILE")
    files = [name for name in config.data if not name.startswith(PREFIX)]
    if files and _small(files, "prompts"):
        read_prompts(resolve_paths(files, cache_folder(), "prompts"), **config.reading)
    return names


def _named_models(words: Sequence[str]) -> dict[str, str]:
    """Policies by name: NAME=MODEL, or the last part of where a model lies."""
    names: dict[str, str] = {}
    for word in words:
        name, sign, model = word.partition("=")
        if not sign or Path(word).exists():
            name, model = Path(word).name, word
        check_model(model, ("policy", "reward"), "models")
        if name in names:
            raise UserError(
                "two models would have one name", where="models", got=f"{names[name]} and {model}",
                want="a name for each", fix=f"write NAME={model}",
            )  # fmt: skip
        names[name] = model
    return names


def check_journey(journey: JourneyConfig) -> None:
    """Check every stage for what no other stage of the journey makes."""
    require_folder(Path(journey.output), ROOM_BYTES)
    _require_own(Path(journey.output))
    for name in (*STAGES, "eval"):
        config = getattr(journey, name)
        if config is None:
            continue
        _check_models(config, f"{name}.")
        reads_data = isinstance(config, StageConfig | RepliesConfig)
        named = config.data.train if reads_data else any(files for _, files, _ in rows_of(config))
        if not named:
            option = f"{name}.{_ROWS.get(name, 'data.train')}"
            raise _no_rows(option, f"write {option} in the recipe")
        _check_rows(config)
        if isinstance(config, RepliesConfig):
            _check_judge(config)


def _require_own(run: Path) -> None:
    """A journey does not mix its stages with those that commands made one by one."""
    if is_run(run) and not (run / "recipe.yaml").is_file():
        raise UserError(
            "this folder holds stages that no recipe made", where=str(run), want="a new folder, or one of a journey",
            fix="choose another folder: output=FOLDER",
        )  # fmt: skip


def check_model(name: str, kinds: Collection[Kind], option: str) -> None:
    """Refuse a name that is no model, a folder that may not be parsed, an unfinished stage or one of another kind."""
    path = Path(name)
    if name in STARTER_MODELS:
        model_path(name, cache_folder())
    elif name and (is_finished(path) or is_begun(path)):
        require_kind(path, kinds, wanted_for=option)
    elif name and is_run(path):
        policy_of(path)
    elif path.is_dir() and (runs := list_runs(path)):
        raise UserError(
            "this folder holds runs", where=name, got=", ".join(run.name for run in runs[:5]), want="one of them",
            fix=f"name one, such as {runs[-1].path}",
        )  # fmt: skip
    elif name and path.exists():
        check_model_folder(path)
    elif not may_be_hub_id(name):
        raise UserError(
            "there is no such model" if name else "the name of the model is empty", where=option, got=name,
            want=f"a folder, a hub id (owner/name) or {', '.join(STARTER_MODELS)}",
            fix="check the path, or leave --model away to use the starter model", exit_code=ExitCode.MISSING_INPUT,
        )  # fmt: skip


def is_reward(name: str) -> bool:
    """Whether a model's name is the folder of a finished reward stage."""
    return is_finished(Path(name)) and read_manifest(Path(name)).kind == "reward"


def _check_models(config: Section, prefix: str = "") -> None:
    for option, name, kinds in models_of(config):
        if name.startswith("@"):
            continue
        if kinds == ("reward",):
            _check_reward_model(name, prefix + option)
        else:
            check_model(name, kinds, prefix + option)


def _check_reward_model(name: str, option: str) -> None:
    if not name:
        raise UserError(
            "no reward model is named", where=option, want="the folder of a reward stage",
            fix="train one with `fairlead reward`, then --reward-model RUN/02-reward; or use `fairlead dpo`",
        )  # fmt: skip
    require_kind(Path(name), ("reward",), wanted_for=option)


def _check_judge(config: RepliesConfig) -> None:
    """The question and the key are there; whether the endpoint answers shows when it is asked."""
    question_text(config.judge.prompt_file)
    secret(config.judge.api_key_variable)


def _check_rows(config: Section, rejects: Path | None = None) -> None:
    """Files must be there; small ones are read. `rejects` is for the training rows."""
    rows = config.data if isinstance(config, StageConfig | RepliesConfig) else RowsConfig()
    for option, names, kind in rows_of(config):
        files = [name for name in names if not name.startswith("@")]
        if _small(files, kind):
            listed = rejects if option == "data.train" else None
            paths = resolve_paths(files, cache_folder(), kind)
            # Columns and encoding are those of `data`; other files are in a known layout
            own = option.startswith("data.")
            reading = rows.reading if own else {"max_reject_rate": rows.max_reject_rate}
            READERS[kind](paths, rejects=listed, **reading)


def _no_rows(where: str, fix: str) -> UserError:
    return UserError("no rows are named", where=where, want=f"files, or one of {', '.join(STARTER_DATASETS)}", fix=fix)


def _small(names: Sequence[str], kind: RowKind | None = None, *, texts: bool = False) -> bool:
    """Whether there are rows and they can be read in no time; UserError for a file that is not there."""
    files = dict.fromkeys(map(on_disk, expand(resolve_paths(names, cache_folder(), kind), texts=texts)))
    for file in files:
        if not file.exists():
            raise UserError(
                "there is no such file", where=str(file), want=f"a file, or one of {', '.join(STARTER_DATASETS)}",
                fix="check the path", exit_code=ExitCode.MISSING_INPUT,
            )  # fmt: skip
    return len(files) > 0 and sum(file.stat().st_size for file in files) <= SMALL_BYTES
