"""The one exception for what a user can fix, and the exit codes of every command."""

from enum import IntEnum


class ExitCode(IntEnum):
    """Exit codes of the `fairlead` command (sysexits.h where it has a name for the case)."""

    OK = 0
    USAGE = 2  # wrong option, wrong configuration, wrong kind of artifact
    BAD_DATA = 65  # a file was read and its content cannot be used
    MISSING_INPUT = 66  # a file, folder, model or registry is not there
    INTERNAL = 70  # a defect of fairlead
    IO = 74  # the disk is full, a folder cannot be written
    RETRY = 75  # someone else holds it now: the same command may work later
    INTERRUPTED = 130  # Ctrl-C, after the state was saved
    TERMINATED = 143  # SIGTERM, after the state was saved


class UserError(ValueError):
    """A mistake the user can mend, shown as one message without a traceback.

    `what` says what is wrong, `where` names the file with line or the option, `got` and `want` say what came and what
    was wanted, `fix` is the one line that mends it.
    """

    def __init__(
        self,
        what: str,
        *,
        where: str = "",
        got: str = "",
        want: str = "",
        fix: str = "",
        exit_code: ExitCode = ExitCode.USAGE,
    ) -> None:
        self.what, self.where, self.got, self.want, self.fix = what, where, got, want, fix
        self.exit_code = exit_code
        super().__init__(str(self))

    def __str__(self) -> str:
        text = f"{self.where}: {self.what}" if self.where else self.what
        if self.got:
            text += f"; got {self.got}"
        if self.want:
            text += f"; want {self.want}"
        return f"{text}\nFix: {self.fix}" if self.fix else text
