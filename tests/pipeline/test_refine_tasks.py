"""The first pass of the refinery by datatrove: the same bytes, whoever does the work and whenever it is stopped."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

pytest.importorskip("datatrove")

from datatrove.executor import LocalPipelineExecutor, RayPipelineExecutor, SlurmPipelineExecutor

import fairlead
from fairlead.artifacts.manifest import read_manifest
from fairlead.config.parse import load
from fairlead.config.refine import ExecutorConfig, RefineConfig
from fairlead.errors import ExitCode, UserError
from fairlead.pipeline.first_pass import FirstPass
from fairlead.pipeline.refine import refine
from fairlead.pipeline.refine_tasks import ReadAndFilter, executor_of

WORDS = ("river", "mountain", "teacher", "window", "market", "silver", "letter", "garden", "engine", "winter", "copper")
NAMES = ("train.jsonl", "held_out.jsonl", "dropped.jsonl", "contamination.jsonl")
OPTIONS = (
    "data=[a.jsonl,b.jsonl]",
    "held_out=0.2",
    "contamination.against=bench.jsonl",
    "shard_rows=20",
    "max_reject_rate=0.1",
)
SLURM = ("executor.kind=slurm", "executor.partition=cpu")


def sentence(rng, count):
    return " ".join(rng.choice(WORDS) + str(rng.randrange(1000)) for _ in range(count))


def write_rows(path, rng, count):
    rows = [{"instruction": sentence(rng, 8), "output": sentence(rng, 40) + "."} for _ in range(count)]
    rows += [{**rows[0], "output": rows[0]["output"].upper()}, {**rows[1], "output": "..."}]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture
def here(tmp_path, monkeypatch):
    """Two files, of 4 shards and of 2, named from the working folder; a question that one row holds."""
    rng = random.Random(0)
    write_rows(tmp_path / "a.jsonl", rng, 63)
    write_rows(tmp_path / "b.jsonl", rng, 20)
    question = json.loads((tmp_path / "b.jsonl").read_text().splitlines()[3])["output"]
    (tmp_path / "bench.jsonl").write_text(json.dumps({"question": question}) + "\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(Path(fairlead.__file__).parents[1]))  # this code, in every process
    return tmp_path


def run(name, *words):
    return refine(load(RefineConfig, None, [f"output={name}", *OPTIONS, *words]))


def result(folder):
    """All that a run leaves, but for times."""
    refined = read_manifest(folder).facts["refined"]
    return {"summary": refined} | {name: (folder / name).read_bytes() for name in NAMES}


@pytest.mark.parametrize(("tasks", "workers"), [(1, 1), (2, 1), (3, 1), (9, 1), (3, 2)])
def test_the_result_is_the_same_whoever_does_the_work(here, capfd, tasks, workers):
    alone = run("alone")
    assert min(map(len, result(alone).values())) > 0
    capfd.readouterr()
    words = ("executor.kind=local", f"executor.tasks={tasks}", f"executor.workers={workers}")
    spread = run("spread", *words)
    assert result(spread) == result(alone)
    assert not (spread / "work").exists()
    told = capfd.readouterr().err
    assert f"{tasks} tasks, {workers} at a time" in told
    assert "rows read" not in told, "the tasks left nothing to do"
    assert "datatrove." not in told, "its log stays in its file"


def started(name, tasks):
    """The command in a process group of its own, behind its first shard, with all processes that it started."""
    rng = random.Random(1)
    write_rows(Path("a.jsonl"), rng, 1200)
    words = [f"output={name}", *OPTIONS, "executor.kind=local", f"executor.tasks={tasks}", "executor.workers=2"]
    program = [sys.executable, "-m", "fairlead", "data", "refine", *words]
    process = subprocess.Popen(program, stderr=subprocess.PIPE, text=True, start_new_session=True)
    work = Path(name) / "01-refine" / "work"
    while process.poll() is None and not list(work.glob("*-[0-9]*.json")):
        time.sleep(0.02)
    return process, psutil.Process(process.pid).children(recursive=True), work


def gone(processes):
    """Whether they all end by themselves."""
    return not psutil.wait_procs(processes, timeout=20)[1]


def test_killed_and_run_again_with_other_tasks_it_leaves_the_same_bytes(here, monkeypatch):
    process, workers, work = started("cut", tasks=4)
    process.kill()
    process.communicate(timeout=60)
    assert gone(workers), "none goes on writing, and none holds the lock"
    finished = len(list(work.glob("*-[0-9]*.json")))
    made = []
    monkeypatch.setattr("fairlead.data.refine.shards._write", counting(made))
    cut = run("cut", "executor.kind=local", "executor.tasks=3")
    assert 0 < len(made) == 63 - finished
    assert result(cut) == result(run("whole"))


def counting(made):
    """`_write` that remembers what it wrote."""
    from fairlead.data.refine.shards import _write

    def write(path, *rest):
        made.append(path)
        return _write(path, *rest)

    return write


@pytest.mark.parametrize(
    "number",
    [
        pytest.param(signal.SIGINT, id="ctrl-c in a terminal"),
        pytest.param(signal.SIGTERM, id="sigterm", marks=pytest.mark.slow),
    ],
)
def test_a_signal_stops_all_processes(here, number):
    process, workers, work = started("run", tasks=2)
    if number == signal.SIGINT:
        os.killpg(process.pid, number)
    else:
        process.send_signal(number)
    _, told = process.communicate(timeout=60)
    assert process.returncode == (ExitCode.INTERRUPTED if number == signal.SIGINT else ExitCode.TERMINATED)
    assert "goes on from the finished shards" in told
    assert "Traceback" not in told
    assert gone(workers)
    assert not work.with_name("manifest.json").exists()


@pytest.mark.parametrize("workers", [1, 2])
def test_what_is_wrong_with_a_file_is_told_as_without_tasks(here, workers):
    (here / "b.jsonl").write_bytes("\u6c34".encode("gb18030") * 9)
    with pytest.raises(UserError) as alone:
        run("alone")
    with pytest.raises(UserError) as spread:
        run("spread", "executor.kind=local", "executor.tasks=2", f"executor.workers={workers}")
    assert vars(spread.value) == vars(alone.value)


def test_what_is_left_out_is_told_once(here, capfd):
    rows = [{"text": sentence(random.Random(2), 30)}] * 50 + [{"text": "x", "not_a_page": "an image"}]
    (here / "c.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = ["data=c.jsonl", "shard_rows=20", "executor.kind=local", "executor.tasks=4"]
    refine(load(RefineConfig, None, ["output=run", *words]))
    assert capfd.readouterr().err.count("1 rows left out") == 1


def test_a_task_sees_relative_paths_from_where_the_run_began(here, tmp_path_factory, monkeypatch):
    config = load(RefineConfig, None, ["data=a.jsonl", "shard_rows=20"])
    step = ReadAndFilter(FirstPass(config, (("a.jsonl", Path("a.jsonl")),), Path("work")))
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    step.run()
    assert len(list((here / "work").glob("*-[0-9]*.json"))) == 4


def test_other_tasks_are_no_other_stage(here, capsys):
    folder = run("run")
    assert run("run", "executor.kind=local", "executor.tasks=3") == folder
    assert "unchanged, skipped" in capsys.readouterr().err


# --- clusters

SBATCH = """#!{python}
import os, re, subprocess, sys
text = open(sys.argv[-1]).read()
if "--dependency=" not in text:  # the summary of statistics
    for number in range(1 + int(re.search(r"--array=0-([0-9]+)", text)[1])):
        task = {{"SLURM_ARRAY_TASK_ID": str(number), "SLURM_NODELIST": "here", "SLURM_JOB_ID": "7"}}
        subprocess.run(["bash", sys.argv[-1]], env={{**os.environ, **task}}, check=True)
print("Submitted batch job 7")
"""


@pytest.fixture
def slurm(tmp_path_factory, monkeypatch):
    """Commands named as Slurm's that run the tasks one after the other."""
    programs = tmp_path_factory.mktemp("programs")
    (programs / "sbatch").write_text(SBATCH.format(python=sys.executable))
    (programs / "srun").write_text('#!/bin/sh\nshift 3\nexec "$@"\n')
    (programs / "scontrol").write_text("#!/bin/sh\necho here\n")
    for program in programs.iterdir():
        program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")


def test_jobs_of_slurm_do_the_first_pass(here, slurm, capfd):
    words = (*SLURM, "executor.tasks=2", "executor.workers=2")
    with pytest.raises(UserError, match="handed to Slurm") as handed:
        run("jobs", *words)
    assert handed.value.exit_code == ExitCode.RETRY
    script = Path("jobs/01-refine/work/tasks-2/launch_script.slurm").read_text()
    assert "#SBATCH --array=0-1%2" in script
    capfd.readouterr()
    jobs = run("jobs", *words)
    assert "rows read" not in capfd.readouterr().err, "the jobs left nothing to do"
    assert result(jobs) == result(run("alone"))


def test_without_slurm_it_says_so(here, monkeypatch):
    monkeypatch.setenv("PATH", str(here))
    with pytest.raises(UserError, match="no Slurm here"):
        run("jobs", *SLURM)


def test_without_ray_it_says_so(here, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UserError, match="the package ray is not installed"):
        run("jobs", "executor.kind=ray")


def test_without_datatrove_it_says_so(here, monkeypatch):
    monkeypatch.setitem(sys.modules, "fairlead.pipeline.refine_tasks", None)
    with pytest.raises(UserError, match=r"pip install 'fairlead\[datatrove\]'"):
        run("tasks", "executor.kind=local")


def test_an_executor_has_the_options_of_its_kind(tmp_path):
    def made(**options):
        return executor_of(ExecutorConfig(tasks=6, workers=3, **options), [], tmp_path)

    local, ray = made(kind="local"), made(kind="ray")
    slurm = made(kind="slurm", partition="cpu-small", time="2-00:30:00")
    for executor, kind in (
        (local, LocalPipelineExecutor), (ray, RayPipelineExecutor), (slurm, SlurmPipelineExecutor),
    ):  # fmt: skip
        assert isinstance(executor, kind)
        assert (executor.tasks, executor.workers, executor.skip_completed) == (6, 3, False)
        assert executor.logging_dir.path == str(tmp_path)
    asked = slurm.get_sbatch_args(6)
    assert (asked["partition"], asked["time"], asked["array"]) == ("cpu-small", "2-00:30:00", "0-5%3")
    assert "qos" not in asked
    assert f"export PATH={Path(sys.executable).parent}:$PATH" in slurm.get_launch_file_contents(asked, "true")


@pytest.mark.parametrize("words", [
    ("executor.tasks=2",), ("executor.workers=2",), ("executor.kind=local", "executor.partition=cpu"),
    ("executor.kind=ray", "executor.time=00:10:00"), ("executor.kind=slurm",),
    ("executor.kind=slurm", "executor.partition=cpu", "executor.time=10 minutes"),
], ids=" ".join)  # fmt: skip
def test_options_without_an_effect_are_refused(words):
    with pytest.raises(UserError, match="executor"):
        load(RefineConfig, None, ["data=a.jsonl", *words])
