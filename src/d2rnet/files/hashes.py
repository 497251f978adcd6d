"""SHA-256 of inputs and settings: what a result was made from."""

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any


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


@dataclass(frozen=True)
class HashedFile:
    """A file whose SHA-256 is known, so that 1 GB is not read once more for it."""

    path: Path
    sha256: str


def _size(file: Path) -> int:
    try:
        return os.stat(file).st_size  # noqa: PTH116 - called for each of 377,110 images
    except (FileNotFoundError, NotADirectoryError):
        return -1


def sha256_of(source: "str | Path | ManyFiles | HashedFile") -> str:
    """Return the SHA-256 of an input: of a file's bytes, or of many files' sizes."""
    if isinstance(source, HashedFile):
        return source.sha256
    return source.sha256() if isinstance(source, ManyFiles) else sha256_file(source)


def sha256_file(path: str | Path) -> str:
    """Return the SHA-256 of a file's bytes as 64 hex digits."""
    with Path(path).open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def fingerprint(value: Any) -> str:
    """Return 12 hex digits that name a JSON-serialisable value (settings, input hashes); key order does not matter."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:12]
