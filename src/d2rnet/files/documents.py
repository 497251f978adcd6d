"""Files that cross a stage border: atomic writes, JSON, JSON lines, hashes and locks.

Every write goes to a temporary name in the target's own folder and is renamed over the target at the end, so that a
reader never sees half a file, whatever happens to the writer (kill, full disk, power loss after the rename).
"""

import errno
import gzip
import json
import logging
import os
import stat
import zlib
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from d2rnet.errors import DatasetError
from d2rnet.files.atomic import _kind, atomic_path, write_text
from d2rnet.files.parsing import ParseError, parse_json

log = logging.getLogger(__name__)
NO_PATH = {
    errno.ELOOP: "a link that leads to itself",
    errno.ENAMETOOLONG: "a name longer than a file system takes",
    errno.ENOTDIR: "a path that goes through a file",
}
MAX_LINE_CHARACTERS = 1 << 26  # of a JSON lines file: 64 Mi; a gzip file of a few kilobytes can hold one line of gigabytes


def write_json(target: str | Path, value: Any, *, indent: int | None = 1, flush: bool = True) -> None:
    """Write a JSON document atomically; NaN and infinity are refused, keys keep their order.

    Args:
        target: final file path.
        value: anything ``json`` serialises.
        indent: spaces a level; None for one compact line (large files).
        flush: as of :func:`d2rnet.files.atomic.atomic_path`.
    """
    with atomic_path(target, flush=flush) as temporary, temporary.open("w", encoding="utf-8") as stream:
        # dumps, not dump: only a text made in one go uses the compiled encoder (for large files written on one line).
        stream.write(json.dumps(value, indent=indent, ensure_ascii=False, allow_nan=False) + "\n")


def check_regular_file(path: str | Path) -> None:
    """Refuse what has a name and no content of its own, before it is opened: reading a pipe waits for ever.

    Raises:
        FileNotFoundError: there is nothing of that name.
        DatasetError: a folder, pipe, socket or device; or a path that cannot be a file's.
    """
    try:
        mode = os.stat(path).st_mode  # noqa: PTH116 - called for each of 377,110 images
    except ValueError as error:
        raise DatasetError(f"{str(path)!a}: got a path with a NUL character; expected the path of a file.") from error
    except OSError as error:
        if error.errno not in NO_PATH:
            raise
        raise DatasetError(f"{str(path)[:300]}: got {NO_PATH[error.errno]}; expected a file. Correct the path.") from error
    if not stat.S_ISREG(mode):
        raise DatasetError(f"{path}: got {_kind(mode)}; expected a file. Correct the path.")


def read_json(path: str | Path) -> Any:
    """Read a JSON document; see :mod:`d2rnet.files.parsing` for what is refused beyond the syntax.

    Raises:
        FileNotFoundError: there is no such file.
        DatasetError: no regular file, empty, not UTF-8 or not JSON; the message names line and column.
    """
    check_regular_file(path)
    try:
        return parse_json(Path(path).read_text(encoding="utf-8"))
    except ParseError as error:
        raise DatasetError(f"{path}: not a JSON document that can be used: {error}. Mend it or make it again.") from error
    except json.JSONDecodeError as error:
        raise DatasetError(
            f"{path}: not a JSON document (line {error.lineno}, column {error.colno}: {error.msg}). "
            "If a run was interrupted, delete the file and run again."
        ) from error
    except UnicodeDecodeError as error:
        raise DatasetError(f"{path}: byte {error.start} is not UTF-8; expected a UTF-8 JSON document.") from error


def write_jsonl(target: str | Path, records: Iterable[dict[str, Any]]) -> int:
    """Write one JSON object a line, atomically; return the number of lines."""
    count = 0
    with atomic_path(target) as temporary, temporary.open("w", encoding="utf-8") as stream:
        for record in records:
            stream.write(json.dumps(record, ensure_ascii=False, allow_nan=False) + "\n")
            count += 1
    return count


def read_jsonl(path: str | Path) -> Iterator[dict[str, Any]]:
    """Yield the objects of a JSON lines file (``.gz`` accepted); blank lines are skipped.

    Raises:
        FileNotFoundError: there is no such file.
        DatasetError: no regular file, a damaged gzip, or a line that is not UTF-8, not a JSON object or longer than
            MAX_LINE_CHARACTERS; the message names the line.
    """
    for number, line in enumerate(_lines(Path(path)), start=1):
        if not line.strip():
            continue
        try:
            record = parse_json(line)
        except json.JSONDecodeError as error:
            raise DatasetError(f"{path}: line {number} is not JSON ({error.msg}).") from error
        except ParseError as error:
            raise DatasetError(f"{path}: line {number} is not JSON that can be used: {error}.") from error
        if not isinstance(record, dict):
            raise DatasetError(f"{path}: line {number} is a {type(record).__name__}; expected a JSON object.")
        yield record


def _lines(path: Path) -> Iterator[str]:
    check_regular_file(path)
    opener = gzip.open if path.suffix == ".gz" else open
    number = 0
    try:
        with opener(path, "rt", encoding="utf-8") as stream:
            for number, line in enumerate(iter(partial(stream.readline, MAX_LINE_CHARACTERS), ""), start=1):
                if len(line) == MAX_LINE_CHARACTERS:
                    raise DatasetError(f"{path}: line {number} is longer than {MAX_LINE_CHARACTERS} characters.")
                yield line
    except UnicodeDecodeError as error:
        raise DatasetError(f"{path}: not UTF-8 behind line {number} ({error.reason}); expected JSON lines.") from error
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DatasetError(f"{path}: damaged or truncated gzip behind line {number} ({error}). Fetch it again.") from error


def read_jsonl_of_killed(path: Path) -> list[dict[str, Any]]:
    """Read a JSON lines file that a killed process appended to; [] if there is none.

    A last line without its end is removed from the file, so that more can be appended.

    Raises:
        DatasetError: a whole line is not a JSON object.
    """
    if not path.is_file():
        return []
    text = path.read_text(encoding="utf-8")
    if not text.endswith("\n"):
        write_text(path, text[: text.rfind("\n") + 1])
    return list(read_jsonl(path))
