"""The first pass of the refinery as tasks of datatrove: processes of this machine, jobs of Slurm, or Ray.

A task makes its share of the shards (`parts_of`). The shards alone tell what is finished, so that a killed run, another
number of tasks and a task that ran twice all end in the same bytes; datatrove's own markers are not asked. Its logs and
statistics lie beside the shards until the run is finished. datatrove hands tasks to its processes by dill, a pickle:
nothing is read that it did not write itself.
"""

import shlex
import sys
from contextlib import chdir
from importlib.util import find_spec
from pathlib import Path
from shutil import which
from typing import Any

import multiprocess
from datatrove.data import DocumentsPipeline
from datatrove.executor import LocalPipelineExecutor, RayPipelineExecutor, SlurmPipelineExecutor
from datatrove.executor.base import PipelineExecutor
from datatrove.pipeline.base import PipelineStep
from loguru import logger
from multiprocess.process import parent_process

from fairlead.config.refine import ExecutorConfig
from fairlead.data.refine.shards import Shard, parts_of
from fairlead.errors import ExitCode, UserError
from fairlead.pipeline.first_pass import FirstPass, Say
from fairlead.runtime.interrupts import exit_at_once, ignore_ctrl_c

logger.disable("datatrove")  # every task would write a page to this terminal; jobs elsewhere switch it on


class ReadAndFilter(PipelineStep):
    """Makes the shards of one task; what another step may send is passed on."""

    type = "refine"
    name = "read and filter"

    def __init__(self, first_pass: FirstPass) -> None:
        super().__init__()
        self.first_pass = first_pass
        self.folder = str(Path.cwd())  # relative paths are seen from there, on every machine

    def run(self, data: DocumentsPipeline = None, rank: int = 0, world_size: int = 1) -> DocumentsPipeline:
        """Make them."""
        _settle(self.first_pass.config.executor)
        parts = parts_of(rank, num_tasks=world_size, num_files=len(self.first_pass.files))
        say = _say if parts[0].first == 0 else _nothing  # tasks that share a file all read it; one tells of it
        with chdir(self.folder):
            self.first_pass.run(say, parts=parts, after_shard=self._count)
        return data

    def _count(self, shard: Shard) -> None:
        self.stat_update("rows", value=shard.rows_in)
        for step, count in shard.dropped.items():
            self.stat_update(f"dropped by {step}", value=count)


def run_tasks(first_pass: FirstPass, say: Say) -> None:
    """Run all tasks and wait for them; those of Slurm are handed over, and UserError (75) says when to come again."""
    config = first_pass.config.executor
    _require(config.kind)
    logs = first_pass.work / f"tasks-{config.tasks}"
    say(f"refine: {config.tasks} tasks, {config.workers} at a time, go to datatrove ({config.kind}); logs in {logs}")
    executor = executor_of(config, [ReadAndFilter(first_pass)], logs)
    _start_afresh()
    try:
        with exit_at_once():
            executor.run()
    except SystemExit:
        say("refine: stopped; the same command goes on from the finished shards")
        raise
    if config.kind == "slurm":
        raise UserError(
            f"{config.tasks} tasks were handed to Slurm", where="executor.kind=slurm",
            fix="give the same command again when `squeue` shows none of them", exit_code=ExitCode.RETRY,
        )  # fmt: skip


def _require(kind: str) -> None:
    """UserError (66) where there is no such cluster."""
    if kind == "slurm" and which("sbatch") is None:
        what, fix = "there is no Slurm here (no command sbatch)", "run it where jobs are submitted"
    elif kind == "ray" and find_spec("ray") is None:
        what, fix = "the package ray is not installed", "pip install 'ray[default]'"
    else:
        return
    raise UserError(
        what, where=f"executor.kind={kind}", fix=f"{fix}, or set executor.kind=local", exit_code=ExitCode.MISSING_INPUT
    )


def _start_afresh() -> None:
    """New processes of datatrove share no open file with this one: a fork would hold the lock on the stage."""
    processes: Any = multiprocess  # its functions get their names when it is imported
    processes.set_start_method("forkserver", force=True)
    processes.set_forkserver_preload(["fairlead.runtime.orphans"])  # by name: it acts where it is imported


def executor_of(config: ExecutorConfig, pipeline: list[Any], logs: Path) -> PipelineExecutor:
    """datatrove's executor of this kind. No task is skipped for a marker: a finished one ends at its first look."""
    shared = {"tasks": config.tasks, "workers": config.workers, "logging_dir": str(logs), "skip_completed": False}
    match config.kind:
        case "slurm":
            programs = shlex.quote(str(Path(sys.executable).parent))
            return SlurmPipelineExecutor(
                pipeline, **shared, partition=config.partition, time=config.time, job_name="fairlead-refine", qos="",
                env_command=f"export PATH={programs}:$PATH",
            )  # fmt: skip
        case "ray":
            return RayPipelineExecutor(pipeline, **shared)
        case _:
            return LocalPipelineExecutor(pipeline, **shared)


def _settle(config: ExecutorConfig) -> None:
    """What a process does before its first task: Ctrl-C is for the one that started it."""
    if config.kind != "local":
        logger.enable("datatrove")
    elif parent_process() is not None:
        ignore_ctrl_c()


def _say(text: str) -> None:
    sys.stderr.write(text + "\n")


def _nothing(text: str) -> None:
    pass
