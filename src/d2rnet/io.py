"""Files that cross a stage border: atomic writes, JSON, JSON lines, hashes and locks.

Every write goes to a temporary name in the target's own folder and is renamed over the target at the end, so that a
reader never sees half a file, whatever happens to the writer (kill, full disk, power loss after the rename).
"""

import errno
import gzip
import hashlib
import json
import logging
import os
import stat
import tempfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from d2rnet.errors import D2RNetError, DatasetError
from d2rnet.parsing import ParseError, parse_json

log = logging.getLogger(__name__)
PART = ".part"  # in the name of a file that is being written
NO_PATH = {
    errno.ELOOP: "a link that leads to itself",
    errno.ENAMETOOLONG: "a name longer than a file system takes",
    errno.ENOTDIR: "a path that goes through a file",
}
MAX_LINE_CHARACTERS = 1 << 26  # of a JSON lines file: 64 Mi; a gzip file of a few kilobytes can hold one line of gigabytes


@contextmanager
def atomic_path(target: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside ``target``; rename it over ``target`` on success, remove it on any error.

    Args:
        target: final file path; its folder is made if needed.

    Yields:
        Path with the same suffix as ``target``, to be written by the caller.

    Raises:
        D2RNetError: ``target`` is a folder, pipe, socket or device. A file would take the place of ``/dev/null``, too.
    """
    target = Path(target)
    if target.exists() and not target.is_file():
        raise D2RNetError(f"{target}: got {_kind(target.stat().st_mode)}; expected the path of a file to write. Name one.")
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{target.stem}.", suffix=f"{PART}{target.suffix}", dir=target.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


def leftovers(folder: str | Path) -> list[Path]:
    """Temporary files of :func:`atomic_path` in a folder, not below it: being written, or left by a killed process."""
    return sorted(Path(folder).glob(f".*{PART}*"))


def remove_leftovers(folder: str | Path) -> int:
    """Remove what killed processes left half-written in a folder that nobody else writes to now; return their number."""
    found = leftovers(folder)
    for path in found:
        path.unlink(missing_ok=True)
    if found:
        log.info("%s: removed %d half-written file(s) of a killed process", folder, len(found))
    return len(found)


def _umask() -> int:
    """Read the process's umask (the only call that reads it also sets it)."""
    mask = os.umask(0)
    os.umask(mask)
    return mask


def write_text(target: str | Path, text: str) -> None:
    """Write UTF-8 text atomically."""
    with atomic_path(target) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def write_json(target: str | Path, value: Any, *, indent: int | None = 1) -> None:
    """Write a JSON document atomically; NaN and infinity are refused, keys keep their order.

    Args:
        target: final file path.
        value: anything ``json`` serialises.
        indent: spaces a level; None for one compact line (large files).
    """
    with atomic_path(target) as temporary, temporary.open("w", encoding="utf-8") as stream:
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


def _kind(mode: int) -> str:
    """Name what is no regular file."""
    return "a folder" if stat.S_ISDIR(mode) else "a pipe, socket or device"


def read_json(path: str | Path) -> Any:
    """Read a JSON document; see :mod:`d2rnet.parsing` for what is refused beyond the syntax.

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


@dataclass(frozen=True)
class ManyFiles:
    """Files that another input names, such as the radiographs of a COCO json: too many to be read for a hash at each start.

    Attributes:
        folder: where they lie, for people.
        files: in the order in which the other input names them.
    """

    folder: Path
    files: Sequence[Path]

    def sha256(self) -> str:
        """Return the SHA-256 of their sizes in bytes as 64 hex digits; a missing file counts as -1.

        Names are the other input's. Of compressed images of other content, few keep their size, and hardly ever all of them.
        """
        digest = hashlib.sha256()
        for file in self.files:
            digest.update(b"%d\n" % _size(file))
        return digest.hexdigest()


def _size(file: Path) -> int:
    try:
        return os.stat(file).st_size  # noqa: PTH116 - called for each of 377,110 images
    except (FileNotFoundError, NotADirectoryError):
        return -1


def sha256_of(source: "str | Path | ManyFiles") -> str:
    """Return the SHA-256 of an input: of a file's bytes, or of many files' sizes."""
    return source.sha256() if isinstance(source, ManyFiles) else sha256_file(source)


def sha256_file(path: str | Path) -> str:
    """Return the SHA-256 of a file's bytes as 64 hex digits."""
    with Path(path).open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def fingerprint(value: Any) -> str:
    """Return 12 hex digits that name a JSON-serialisable value (settings, input hashes); key order does not matter."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:12]
