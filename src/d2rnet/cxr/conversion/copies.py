"""Images of equal content under any name: what a file holds, told without reading most files.

Sizes are compared first; of files of one size a few kilobytes, and only where those agree the whole. Links to one file are one
file. A copy that was decoded and written anew, or whose header was changed, has another content and is not found here
(:mod:`d2rnet.cxr.conversion.instances` finds those that kept their UID).
"""

import hashlib
import os
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping

from d2rnet.files.hashes import sha256_file
from d2rnet.runs.parallel import map_in_processes

Identity = tuple[Hashable, ...]
_SAMPLE_BYTES = 4096
_FILES_A_CHUNK = 32


def identify(files: Iterable[str], workers: int) -> dict[str, Identity | None]:
    """Return what names the content of each file: equal for links to one file and for files of the same bytes.

    Args:
        files: paths; the same one may come more than once.
        workers: processes that read the files whose size another one has.

    Returns:
        File -> identity; None where it is missing, empty or cannot be read.
    """
    on_disk = {file: _place(file) for file in files}
    first: dict[Identity, str] = {}
    by_size: dict[Hashable, list[str]] = defaultdict(list)
    for file, place in on_disk.items():
        if place is not None and first.setdefault(place[1:], file) == file:
            by_size[place[0]].append(file)
    alike = _repeated(by_size, workers, _sample)
    same = _repeated(alike, workers, _content)
    contents = {file: content for content, found in same.items() for file in found}
    identities: dict[str, Identity | None] = {}
    for file, place in on_disk.items():
        content = None if place is None else contents.get(first[place[1:]])
        identities[file] = None if place is None else (content,) if content is not None else place[1:]
    return identities


def _place(file: str) -> tuple[int, int, int] | None:
    """Return size in bytes, device and inode; None for a missing file and for an empty one, which is no image."""
    try:
        status = os.stat(file)  # noqa: PTH116 - 377,110 files: Path.stat adds nothing but time
    except OSError:
        return None
    return (status.st_size, status.st_dev, status.st_ino) if status.st_size else None


def _repeated(
    groups: Mapping[Hashable, list[str]], workers: int, key: Callable[[str], str | None]
) -> dict[Hashable, list[str]]:
    """Divide each group of files by a key that is read from them, and keep what is still a group."""
    candidates = [(name, file) for name, files in groups.items() if len(files) > 1 for file in files]
    keys = map_in_processes(
        key, [file for _, file in candidates], workers=workers, what="compare files of equal size", chunk_size=_FILES_A_CHUNK
    )
    found: dict[Hashable, list[str]] = defaultdict(list)
    for (name, file), value in zip(candidates, keys, strict=True):
        if value is not None:
            found[name, value].append(file)
    return {name: files for name, files in found.items() if len(files) > 1}


def _sample(file: str) -> str | None:
    """Hash the middle and the end of a file, which differ where images do; None where it cannot be read."""
    try:
        size = os.stat(file).st_size  # noqa: PTH116
        with open(file, "rb") as stream:  # noqa: PTH123
            stream.seek(size // 2)
            middle = stream.read(_SAMPLE_BYTES)
            stream.seek(max(0, size - _SAMPLE_BYTES))
            return hashlib.sha256(middle + stream.read(_SAMPLE_BYTES)).hexdigest()
    except OSError:
        return None


def _content(file: str) -> str | None:
    try:
        return sha256_file(file)
    except OSError:
        return None
