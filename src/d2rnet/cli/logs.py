"""Where the log of a sub-command goes: to the terminal, to a file, or, in a run that is told job by job, to the file alone."""

import logging
import os
import re
import sys
from pathlib import Path

# Set by the logger plugin of Snakemake (run_screen.py) for the jobs of its run.
FILE_ALONE = "D2RNET_LOG_TO_FILE_ALONE"
CLEAR_LINE = "\r\x1b[K"
_CONTROL = re.compile("[\0-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


class PrintableFormatter(logging.Formatter):
    """Shows control characters as escapes: a class name out of a table may clear the screen or turn the text's direction."""

    def format(self, record: logging.LogRecord) -> str:
        """Lay out a record; line breaks and tabs stay."""
        return _CONTROL.sub(lambda match: ascii(match[0])[1:-1], super().format(record))


class WarningHandler(logging.StreamHandler):
    """Shows our own warnings on the terminal of a run; its errors are told by the run, once and at its end."""

    def __init__(self, command: str) -> None:
        """Take hold of standard error as it is now.

        Args:
            command: the sub-command, which each warning begins with.
        """
        super().__init__(os.fdopen(os.dup(2), "w", encoding="utf-8", errors="backslashreplace"))
        self.begin = CLEAR_LINE if self.stream.isatty() else ""  # there may be a line of progress
        self.setFormatter(PrintableFormatter(f"{command}: %(message)s"))
        self.addFilter(lambda record: record.name.startswith("d2rnet") and record.levelno == logging.WARNING)

    def format(self, record: logging.LogRecord) -> str:
        """Lay out a warning in the place of the line of progress."""
        return self.begin + super().format(record)


def set_up_logging(log_file: Path | None, *, command: str = "d2rnet", verbose: bool = False, quiet: bool = False) -> None:
    """Send the log to standard error and, if given, to a file as well.

    Where :data:`FILE_ALONE` is set and there is a file, all that this process, its libraries and its children print goes
    there, and our own warnings to the terminal as well.

    Args:
        log_file: also written to; None for none.
        command: the sub-command, for its warnings.
        verbose: log debugging details.
        quiet: log warnings and errors only.
    """
    handlers: list[logging.Handler] = []
    if log_file is not None:
        log_file.parent.mkdir(parents=True, exist_ok=True)
        # a file name that is no UTF-8 can be logged, too
        handlers.append(logging.FileHandler(log_file, mode="w", encoding="utf-8", errors="backslashreplace"))
    file_alone = log_file is not None and FILE_ALONE in os.environ
    if not file_alone:
        handlers.append(logging.StreamHandler(sys.stderr))
    for handler in handlers:
        handler.setFormatter(PrintableFormatter("%(asctime)s %(message)s", "%H:%M:%S"))
    if file_alone:
        handlers.append(WarningHandler(command))
        _print_to(handlers[0])
    level = logging.DEBUG if verbose else logging.WARNING if quiet else logging.INFO
    logging.basicConfig(level=logging.WARNING, handlers=handlers, force=True)
    logging.raiseExceptions = False  # on a full disk each line would be a traceback of the logging library
    logging.getLogger("d2rnet").setLevel(level)
    logging.captureWarnings(True)
    logging.getLogger("py.warnings").setLevel(logging.DEBUG if verbose else logging.ERROR)


def _print_to(handler: logging.Handler) -> None:
    """Turn standard output and standard error, of libraries in C and of children as well, to the file of a handler."""
    assert isinstance(handler, logging.FileHandler) and handler.stream is not None
    sys.stdout.flush()
    for stream in (1, 2):
        os.dup2(handler.stream.fileno(), stream)
