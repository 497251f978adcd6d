"""Work folders as a version that had fewer settings, or more of them, would have left them."""

from pathlib import Path
from typing import Any

from d2rnet.files.documents import read_json, write_json
from d2rnet.files.hashes import fingerprint
from d2rnet.runs.earlier_work import IDENTITY


def lacking(*keys: str) -> Any:
    """A change of stored settings: the dotted keys are not there; a section that is left empty goes, too."""

    def change(stored: dict[str, Any]) -> None:
        for key in keys:
            *sections, name = key.split(".")
            parents = [stored]
            for section in sections:
                parents.append(parents[-1][section])
            del parents[-1][name]
            for section, parent in zip(reversed(sections), reversed(parents[:-1]), strict=True):
                if not parent[section]:
                    del parent[section]

    return change


def having(**values: Any) -> Any:
    """A change of stored settings: the keys have these values, known or not."""
    return lambda stored: stored.update(values)


def begun_with(root: Path, change: Any) -> Path:
    """Make the one work folder of a stage one that was begun with settings changed by ``change``; return its path of then."""
    (file,) = root.glob(f"*/{IDENTITY}")
    identity = read_json(file)
    change(identity["settings"])
    write_json(file, identity)
    return file.parent.rename(root / fingerprint(identity))
