"""Names out of a table that become names of files: what is safe to join to a folder.

Ids become file names in our own folders, so that one with ``..`` could overwrite a stranger's file; paths are opened below the
root that the configuration names, so that one that leaves it could show a stranger's file. Paths that a person gives may hold
``..``; what is named after them must not.
"""

from pathlib import Path, PurePosixPath

MAX_PATH_BYTES = 2_000  # Linux takes 4,096 with the root, and 255 per part
MAX_PART_BYTES = 255
MAX_NAME_BYTES = 200  # a file system takes 255; suffix and temporary prefix come on top


def is_safe_id(source_id: str) -> bool:
    """Say whether an id can be a file name.

    It is neither empty nor longer than MAX_NAME_BYTES in UTF-8, does not begin with a full stop (our temporary files do), and
    has no path separator, no "..", no control character and no lone surrogate.
    """
    return (
        bool(source_id)
        and not source_id.startswith(".")
        and ".." not in source_id
        and not set(source_id) & set("/\\")
        and source_id.isprintable()
        and len(source_id.encode()) <= MAX_NAME_BYTES
    )


def is_path_below(name: object) -> bool:
    """Say whether a value is a relative path that stays below its root: text, no "..", no control character, not too long."""
    if not isinstance(name, str) or not name or not name.isprintable():
        return False
    path = PurePosixPath(name)
    is_short = len(name.encode()) <= MAX_PATH_BYTES and all(len(part.encode()) <= MAX_PART_BYTES for part in path.parts)
    return is_short and not path.is_absolute() and ".." not in path.parts and path.name != ""


def absolute_without_dots(path: str | Path) -> Path:
    """Return the absolute path of a file or folder, without ``..``; links stay as they are where there is none to take out."""
    absolute = Path(path).absolute()
    if ".." not in absolute.parts:
        return absolute
    folder = absolute.parent.resolve()
    return folder.parent if absolute.name == ".." else folder / absolute.name
