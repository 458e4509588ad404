"""`fairlead doctor`: is this machine ready, and how fast is it."""

from pathlib import Path
from typing import TYPE_CHECKING

from fairlead.errors import ExitCode, UserError

if TYPE_CHECKING:
    from fairlead.runtime.doctor import Finding


def doctor() -> None:
    """Check disk, memory, threads, devices, folders and registry; time a matrix product."""
    from fairlead.data.starter import RegistryCheck, missing
    from fairlead.runtime.environment import cache_folder

    registry = RegistryCheck()  # pip looks while the machine is examined
    cache = cache_folder()
    try:
        from fairlead.runtime.doctor import Finding, examine
    except ImportError as error:
        fix = "install the package again: make setup, or pip install fairlead"
        raise UserError("a package is missing", got=str(error), fix=fix, exit_code=ExitCode.MISSING_INPUT) from error
    findings = []
    for finding in examine(cache, Path.cwd()):
        findings.append(finding)
        _show(finding)
    lacking = missing(cache)
    if lacking:
        _show(
            Finding(
                "starter files", f"not in the cache: {', '.join(lacking)}", "the demo brings them", "fairlead fetch"
            )
        )
    else:
        _show(Finding("starter files", "in the cache, digests verified"))
    if reachable := registry.answer():
        _show(Finding("registry", reachable))
    else:
        what, fix = "new starter files cannot be brought", "check the network and `pip config list`"
        _show(Finding("registry", "pip gets no answer", what, fix))
    if not lacking:
        _show(Finding("the demo", _demo_time()))
    broken = [finding for finding in findings if finding.exit_code is not ExitCode.OK]
    if broken:
        worst = broken[0]
        raise UserError(worst.problem, where=f"{worst.name}: {worst.value}", fix=worst.fix, exit_code=worst.exit_code)
    print("\nready\nnext: fairlead demo")


def _demo_time() -> str:
    from fairlead.config.journey import JourneyConfig
    from fairlead.config.parse import load
    from fairlead.evaluate.wording import duration
    from fairlead.pipeline.demo import shipped_recipe
    from fairlead.pipeline.estimate import estimate

    journey = load(JourneyConfig, shipped_recipe("demo"), [])
    seconds = sum(part.seconds for part in estimate(journey).values())
    return f"about {duration(seconds)} on this machine, right within a factor of two"


def _show(finding: "Finding") -> None:
    mark = "!" if finding.problem else " "
    print(f"{mark} {finding.name:<14} {finding.value}", flush=True)
    if finding.problem:
        print(f"  {'':<14} {finding.problem}; {finding.fix}", flush=True)
