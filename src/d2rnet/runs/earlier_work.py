"""Work folders that are there already: whether one of an earlier version goes on, and what sets the others apart.

A work folder keeps the settings that it began with. A version that adds a setting finds folders that lack it; since a new
setting's default keeps what was before (CONTRIBUTING.md), such a folder goes on where the setting has its default now, or
its first one where that was another (``WhereAbsent``). A setting that is gone may be forgotten where it was off; any other
ends the run by name, for what it did cannot be done.

Reads: ``fingerprint.json`` of the folders of a stage. Writes nothing.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from d2rnet.errors import D2RNetError
from d2rnet.files.comparison import first_few
from d2rnet.files.documents import read_json
from d2rnet.files.hashes import fingerprint
from d2rnet.settings import Section, subsection, values_in, where_absent

IDENTITY = "fingerprint.json"
OFF: tuple[Any, ...] = (None, False, "off", "none", "", [])


@dataclass(frozen=True)
class Comparison:
    """What a work folder began with against what a run has now.

    Attributes:
        later: settings that the folder lacks and that have the value which this stands for: "key (value)".
        gone: settings that the folder has, this version has not, and that were not off: "key (value)".
        differing: settings and inputs that are not the same, such as "key 1 there, 2 now".
    """

    later: tuple[str, ...]
    gone: tuple[str, ...]
    differing: tuple[str, ...]


@dataclass(frozen=True)
class OtherWork:
    """A work folder beside the one that a run would have."""

    folder: Path
    compared: Comparison

    @property
    def goes_on(self) -> bool:
        """Whether it is of the same run, begun with an earlier version."""
        return not (self.compared.gone or self.compared.differing)

    @property
    def is_lost(self) -> bool:
        """Whether it would be of the same run, but for settings that are gone."""
        return bool(self.compared.gone) and not self.compared.differing

    def last_change(self) -> datetime:
        """When a file of it was last written; locks do not count, nor files that go meanwhile; 1970 without any."""
        times = [0.0]
        with suppress(FileNotFoundError):
            for path in self.folder.iterdir():
                with suppress(FileNotFoundError):  # its process, or d2rnet clean, is at work
                    times += [path.stat().st_mtime] if path.is_file() and not path.name.startswith(".") else []
        return datetime.fromtimestamp(max(times), UTC)

    def __str__(self) -> str:
        return f"{self.folder.name} (last written {self.last_change():%Y-%m-%d %H:%M} UTC)"


def is_off(value: Any) -> bool:
    """Whether the value of a setting, or all of a section, says that what it stands for is not done; 0 may mean anything."""
    if isinstance(value, Mapping):
        return all(map(is_off, value.values()))
    return any(value == off and type(value) is type(off) for off in OFF)


def other_work(root: Path, identity: Mapping[str, Any], settings: Section) -> list[OtherWork]:
    """Compare each work folder of a stage that is not named after ``identity``; the one last written comes first.

    Args:
        root: folder of the stage.
        identity: ``settings`` and ``inputs`` (name -> SHA-256) of the run.
        settings: the same settings, with their defaults.
    """
    found = []
    for path in root.glob(f"*/{IDENTITY}"):
        if path.parent.name == fingerprint(identity):
            continue
        found.append(OtherWork(path.parent, _compared(path, identity["inputs"], settings)))
    return sorted(found, key=lambda work: (work.last_change(), work.folder.name), reverse=True)


def is_as_it_was(work: OtherWork, identity: Mapping[str, Any], settings: Section) -> bool:
    """Whether a folder of :func:`other_work` is there, and says what it said then; the other arguments are that function's."""
    return _compared(work.folder / IDENTITY, identity["inputs"], settings) == work.compared


def _compared(path: Path, inputs: Mapping[str, str], settings: Section) -> Comparison:
    """Compare what a folder began with; one that does not say it can be trusted in nothing."""
    try:
        stored = read_json(path)
        sound = fingerprint(stored) == path.parent.name and isinstance(stored["settings"], dict)
        stored_inputs = dict(stored["inputs"])
    except (D2RNetError, OSError, KeyError, TypeError, ValueError):
        sound = False
    if not sound:
        return Comparison((), (), (f"{IDENTITY} cannot be read, or does not belong to the folder's name",))
    compared = compare_stored(stored["settings"], settings)
    return Comparison(compared.later, compared.gone, (*compared.differing, *_other_inputs(stored_inputs, inputs)))


def _other_inputs(stored: Mapping[str, str], now: Mapping[str, str]) -> Iterator[str]:
    """Say which inputs are not the same."""
    for name in dict.fromkeys([*now, *stored]):
        if name not in stored:
            yield f"input '{name}' not there, read now"
        elif name not in now:
            yield f"input '{name}' read there, not now"
        elif stored[name] != now[name]:
            yield f"input '{name}' of other contents now"


def compare_stored(stored: Mapping[str, Any], settings: Section) -> Comparison:
    """Compare settings that an earlier version may have written with those of now.

    Args:
        stored: JSON values.
        settings: those of now; what ``stored`` lacks had the default of their section, or its first one (``WhereAbsent``).
    """
    later: list[str] = []
    gone: list[str] = []
    differing: list[str] = []
    before = type(settings)().replaced(**where_absent(type(settings)))
    _walk(stored, settings, before, settings.place, (later, gone, differing))
    return Comparison(tuple(later), tuple(gone), tuple(differing))


def _walk(
    stored: Mapping[str, Any], now: Section, defaults: Section, place: str, found: tuple[list[str], list[str], list[str]]
) -> None:
    """Sort the keys of a section, and of those in it, into later, gone and differing."""
    later, gone, differing = found
    values = now.to_json()
    before = defaults.to_json()
    for name, field in type(now).model_fields.items():
        key = f"{place}.{name}" if place else name
        inner = stored.get(name, {})
        if subsection(field.annotation) is not None and isinstance(inner, Mapping):
            _walk(inner, getattr(now, name), getattr(defaults, name), key, found)
        elif name in stored:
            if not _same(stored[name], values[name]):
                differing.append(f"{key} {_text(stored[name])} there, {_text(values[name])} now")
        elif _same(before[name], values[name]):
            later.append(f"{key} ({_text(values[name])})")
        else:
            differing.append(f"{key} unknown there (as {_text(before[name])}), {_text(values[name])} now")
    for name in stored.keys() - type(now).model_fields.keys():
        settings = values_in(stored[name], f"{place}.{name}" if place else name)  # of a section that is gone all that it had
        gone += [f"{key} ({_text(value)})" for key, value in settings if not is_off(value)]


def is_part_of(stored: Any, held: Any) -> bool:
    """Whether stored settings are among those of a run record, as JSON values: each with its value, or gone and was off.

    A record may hold more: settings that came since, and those that decide no result.
    """
    if isinstance(stored, Mapping) and isinstance(held, Mapping):
        return all(is_part_of(value, held[key]) if key in held else is_off(value) for key, value in stored.items())
    return _same(stored, held)


def _same(stored: Any, now: Any) -> bool:
    """Whether two JSON values are the same; 1 is 1.0, but not true."""
    return bool(stored == now) and isinstance(stored, bool) == isinstance(now, bool)


def _text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)[:80]


def the_one_that_goes_on(others: list[OtherWork], root: Path) -> OtherWork | None:
    """Choose the work folder of an earlier version that a run without one of its own goes on with; None if there is none.

    Raises:
        D2RNetError: one would, but for settings that are gone; or there are several.
    """
    fitting = [work for work in others if work.goes_on]
    if len(fitting) > 1:
        raise D2RNetError(
            f"{root}: {len(fitting)} work folders of earlier versions have these settings and inputs: "
            f"{', '.join(map(str, fitting))}; expected one. Move those that are not to go on out of {root}, then run again."
        )
    if fitting:
        return fitting[0]
    for work in others:
        if work.is_lost:
            raise D2RNetError(
                f"{work.folder / IDENTITY}: the same run but for settings that this version does not know: "
                f"{first_few(list(work.compared.gone))}. It cannot go on here: finish it with the version that began it, or "
                f"move {work.folder} out of {root} to begin anew, then run again."
            )
    return None
