"""What can be refused before torch is loaded: wrong paths, wrong rows, the wrong kind of artifact, no room.

The stages check all of this again; here the answer comes in a tenth of a second, and for every stage of a journey
before its first one starts.
"""

from collections.abc import Collection, Sequence
from pathlib import Path

from fairlead.artifacts.atomic import require_folder
from fairlead.artifacts.lock import require_free
from fairlead.artifacts.manifest import MANIFEST_NAME, Kind, require_kind
from fairlead.artifacts.model_folder import check_model_folder, may_be_hub_id
from fairlead.artifacts.stages import stage_folder
from fairlead.config.chat import ChatConfig
from fairlead.config.common import DataConfig
from fairlead.config.journey import STAGES, JourneyConfig
from fairlead.config.stages import DpoConfig, EvalConfig, PpoConfig, RewardConfig, SftConfig, StageConfig
from fairlead.data.load import read_conversations, read_preferences, read_prompts
from fairlead.data.sources import expand
from fairlead.data.starter import STARTER_DATASETS, STARTER_MODELS, model_path, resolve_paths
from fairlead.errors import ExitCode, UserError
from fairlead.runtime.environment import cache_folder, is_first_rank

SMALL_BYTES = 16_000_000  # rows up to this size are read here, larger files only by the stage itself
ROOM_BYTES = 32_000_000  # what any run writes: logs, a report, checkpoints of a small adapter

_READERS = {
    "sft": read_conversations, "reward": read_preferences, "dpo": read_preferences, "ppo": read_prompts,
}  # fmt: skip


def check_stage(verb: str, config: SftConfig | RewardConfig | DpoConfig | PpoConfig) -> None:
    """Raise the UserError that the stage would raise later, if there is one."""
    check_model(config.model.name, ("policy",), "model.name")
    if isinstance(config, PpoConfig):
        _check_reward_model(config.reward_model)
    require_folder(Path(config.output), ROOM_BYTES)
    if is_first_rank():
        require_free(stage_folder(Path(config.output), verb))
    _check_stage_rows(verb, config)


def check_eval(config: EvalConfig) -> None:
    """As `check_stage`."""
    check_model(config.model, ("policy", "reward"), "model")
    if config.parent:
        check_model(config.parent, ("policy", "reward"), "parent")
    if config.reward_model:
        check_model(config.reward_model, ("reward",), "reward_model")
    if not (config.conversations or config.preferences or config.prompts):
        raise UserError(
            "there is nothing to measure on", where="command line", want="conversations, preferences or prompts",
            fix=f"fairlead eval {config.model} --conversations HELD_OUT.jsonl",
        )  # fmt: skip
    require_folder(Path(config.output), ROOM_BYTES)
    for names, read in (
        (config.conversations, read_conversations), (config.preferences, read_preferences),
        (config.prompts, read_prompts),
    ):  # fmt: skip
        if _small(names):
            read(resolve_paths(names, cache_folder()))


def check_chat(config: ChatConfig) -> None:
    """As `check_stage`."""
    check_model(config.model, ("policy",), "model")


def check_journey(journey: JourneyConfig) -> None:
    """Check the files and models of every stage that no other stage of the journey makes."""
    require_folder(Path(journey.output), ROOM_BYTES)
    if journey.split is not None:
        _small(journey.split.sources)
    for name in STAGES:
        config = getattr(journey, name)
        if not isinstance(config, StageConfig):
            continue
        if not config.model.name.startswith("@"):
            check_model(config.model.name, ("policy",), f"{name}.model.name")
        if isinstance(config, PpoConfig) and not config.reward_model.startswith("@"):
            _check_reward_model(config.reward_model, f"{name}.reward_model")
        for files in (config.data.train, _held_out(config)):
            _small([file for file in files if not file.startswith("@")])


def check_model(name: str, kinds: Collection[Kind], option: str) -> None:
    """Refuse a name that is no model, a folder that may not be parsed, or a stage of another kind."""
    path = Path(name)
    if name in STARTER_MODELS:
        model_path(name, cache_folder())
    elif (path / MANIFEST_NAME).is_file():
        require_kind(path, kinds, wanted_for=option)
    elif path.exists() and not _holds_stages(path):
        check_model_folder(path)
    elif not path.exists() and not may_be_hub_id(name):
        raise UserError(
            "there is no such model", where=option, got=name,
            want=f"a folder, a hub id (owner/name) or {', '.join(STARTER_MODELS)}",
            fix="check the path, or leave --model away to use the starter model", exit_code=ExitCode.MISSING_INPUT,
        )  # fmt: skip


def _holds_stages(path: Path) -> bool:
    return path.is_dir() and any((entry / MANIFEST_NAME).is_file() for entry in path.iterdir())


def _check_reward_model(name: str, option: str = "reward_model") -> None:
    if not name:
        raise UserError(
            "no reward model is named", where=option, want="the folder of a reward stage",
            fix="train one with `fairlead reward`, then --reward-model RUN/02-reward; or use `fairlead dpo`",
        )  # fmt: skip
    require_kind(Path(name), ("reward",), wanted_for=option)


def _check_stage_rows(verb: str, config: SftConfig | RewardConfig | DpoConfig | PpoConfig) -> None:
    data, read = config.data, _READERS[verb]
    if not data.train:
        raise UserError(
            "no training rows are named", where="data.train", want=f"files, or one of {', '.join(STARTER_DATASETS)}",
            fix=f"fairlead {verb} --data FILE",
        )  # fmt: skip
    if _small(data.train):
        rejects = stage_folder(Path(config.output), verb) / "rejects.jsonl" if is_first_rank() else None
        read(resolve_paths(data.train, cache_folder()), rejects=rejects, max_reject_rate=data.max_reject_rate)
    held_out = _held_out(config)
    if _small(held_out):
        read(resolve_paths(held_out, cache_folder()), max_reject_rate=data.max_reject_rate)


def _held_out(config: StageConfig) -> tuple[str, ...]:
    return config.data.held_out if isinstance(config.data, DataConfig) else ()


def _small(names: Sequence[str]) -> bool:
    """Whether there are rows and they can be read in no time; UserError for a file that is not there."""
    files = expand(resolve_paths(names, cache_folder()))
    for file in files:
        if not file.exists():
            raise UserError(
                "there is no such file", where=str(file), want=f"a file, or one of {', '.join(STARTER_DATASETS)}",
                fix="check the path", exit_code=ExitCode.MISSING_INPUT,
            )  # fmt: skip
    return len(files) > 0 and sum(file.stat().st_size for file in files) <= SMALL_BYTES
