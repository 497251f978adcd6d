"""How a case puts its input where the reader looks for it."""

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

from hostile_case import READ, REFUSED, Case, Make
from mutate import DAMAGES, Damage, damaged

REFUSED_OR_READ = (REFUSED, READ)
Data = bytes | Callable[[], bytes]  # made only when its case runs, where that takes time


def content(data: Data) -> bytes:
    """Return the bytes."""
    return data() if callable(data) else data


def put(name: str, data: Data, **others: bytes) -> Make:
    """Write a file of that name; ``others`` are further files by name, ``__`` for a full stop."""

    def make(folder: Path) -> Path:
        for other, more in others.items():
            (folder / other.replace("__", ".")).write_bytes(more)
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content(data))
        return path

    return make


def unnamed(make: Make) -> Make:
    """Make the same input; the message names another file, which the case gives with its record."""

    def made(folder: Path) -> None:
        make(folder)

    return made


def put_folder(name: str) -> Make:
    """Make a folder in the place of the file."""

    def make(folder: Path) -> Path:
        (folder / name).mkdir(parents=True)
        return folder / name

    return make


def put_pipe(name: str) -> Make:
    """Make a named pipe, which nobody ever writes to."""

    def make(folder: Path) -> Path:
        os.mkfifo(folder / name)
        return folder / name

    return make


def put_link(name: str, target: str) -> Make:
    """Make a symbolic link."""

    def make(folder: Path) -> Path:
        (folder / name).symlink_to(target)
        return folder / name

    return make


def damaged_cases(reader: str, name: str, data: Data, *, seed: int, what: str = "", **others: bytes) -> list[Case]:
    """Cases of a good file with each kind of seeded damage; one may leave it as good as it was."""

    def broken(damage: Damage) -> bytes:
        return damaged(content(data), damage, seed)

    return [
        Case(reader, f"{what}{damage.__name__.replace('_', ' ')} (seed {seed})", put(name, partial(broken, damage), **others),
             expected=REFUSED_OR_READ)
        for damage in DAMAGES
    ]  # fmt: skip


def no_files(reader: str, name: str) -> list[Case]:
    """Cases of things that are no file: a folder, a pipe, a device, a link to itself; and an empty file."""
    return [
        Case(reader, "an empty file", put(name, b"")),
        Case(reader, "a folder of that name", put_folder(name)),
        Case(reader, "a named pipe of that name", put_pipe(name)),
        Case(reader, "a link to an endless device", put_link(name, "/dev/zero")),
        Case(reader, "a link to itself", put_link(name, name)),
    ]
