"""What the process of a sub-command ends with; the table in docs/reference/cli.md is made from this."""

import signal
from enum import IntEnum


class ExitCode(IntEnum):
    """The exit codes of every sub-command."""

    DONE = 0
    UNEXPECTED = 1
    REFUSED = 2
    PARTLY = 3
    INTERRUPTED = 128 + signal.SIGINT
    UNREAD = 128 + signal.SIGPIPE
    STOPPED = 128 + signal.SIGTERM


MEANINGS: dict[ExitCode, str] = {
    ExitCode.DONE: "done",
    ExitCode.UNEXPECTED: "an unexpected error, shown with its traceback",
    ExitCode.REFUSED: "bad input, settings or arguments, something needed is missing, a work folder is in use, or the disk is "
    "full or read-only; the message says which file and record, what was expected and what to do, and no half-written file "
    "is left",
    ExitCode.PARTLY: "done but for some, which are named; of read: files that could not be read, or, with --strict, "
    "are doubtful; of clean: folders in use",
    ExitCode.INTERRUPTED: "interrupted (Ctrl-C); what exists is whole, and the same command goes on or begins again",
    ExitCode.UNREAD: "whoever read the output stopped reading, as `| head` does, and the command ended there; read goes on",
    ExitCode.STOPPED: "told to stop (SIGTERM; training by SIGUSR1 too); training has saved a checkpoint, from which the same "
    "command goes on",
}
