"""Optional trackers beside metrics.jsonl; each is an extra of the package and nothing depends on it."""

from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

from fairlead.errors import UserError


class Sink(Protocol):
    """Receives every line of metrics."""

    def log(self, row: dict[str, float], step: int) -> None:
        """One step's numbers."""

    def close(self) -> None:
        """No more numbers."""


def open_sink(name: str, run: str, folder: Path, config: dict[str, Any]) -> Sink:
    """Open the named tracker. Raises UserError naming the extra that is not installed, and whatever the tracker may."""
    try:
        match name:
            case "tensorboard":
                return _TensorBoard(folder)
            case "wandb":
                return _Tracker(import_module(name), run, config, dir=str(folder))
            case _:
                return _Tracker(import_module(name), run, config)
    except ImportError as error:
        raise UserError(
            f"the tracker {name} is not installed", where="metrics.sinks", fix=f"pip install 'fairlead[{name}]'"
        ) from error


class _TensorBoard:
    def __init__(self, folder: Path) -> None:
        from torch.utils.tensorboard import SummaryWriter  # noqa: PLC0415 - an optional extra

        self._writer = SummaryWriter(str(folder / "tensorboard"))

    def log(self, row: dict[str, float], step: int) -> None:
        for key, value in row.items():
            self._writer.add_scalar(key, value, step)

    def close(self) -> None:
        self._writer.close()


class _Tracker:
    """trackio and wandb share one interface."""

    def __init__(self, module: Any, run: str, config: dict[str, Any], **options: str) -> None:
        self._module = module
        module.init(project="fairlead", name=run, config=config, **options)

    def log(self, row: dict[str, float], step: int) -> None:  # noqa: ARG002 - both count lines themselves
        self._module.log(row)

    def close(self) -> None:
        self._module.finish()
