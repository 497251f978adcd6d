"""Which files of a folder count as images of radiographs, by name or first bytes."""

from pathlib import Path

from d2rnet.cxr.images.reader import file_format
from d2rnet.errors import DatasetError

IMAGE_SUFFIXES = (".dcm", ".dicom", ".png", ".jpg", ".jpeg")


def is_image_file(folder: str, name: str) -> bool:
    """Say whether a file found in a folder counts as an image: by an image's suffix or first bytes; a hidden file is none.

    PACS exports are often named by UID, without suffix. A file with an image's suffix and other bytes counts, so that the
    check of the headers refuses it by name instead of leaving it out.
    """
    if name.startswith("."):
        return False
    if name.lower().endswith(IMAGE_SUFFIXES):
        return True
    try:
        file_format(Path(folder, name))
    except DatasetError:
        return False
    return True


def without_image_suffix(path: str) -> str:
    """Return a path without the suffix of an image; ``1.2.840.113`` of a DICOM file without one stays whole."""
    return path.rpartition(".")[0] if path.lower().endswith(IMAGE_SUFFIXES) else path
