"""What 'd2rnet read' is given: radiographs and CT volumes, told apart by their content, and where the readings may go."""

import logging
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from d2rnet.ct.volumes.dicom_slices import is_ct_object
from d2rnet.ct.volumes.reader import file_format
from d2rnet.cxr.images.image_names import is_image_file
from d2rnet.errors import ConfigError, DatasetError
from d2rnet.files.names import absolute_without_dots
from d2rnet.reading.result import VOLUME_SUFFIXES, stem_of

log = logging.getLogger(__name__)
MARK = ".d2rnet-read"  # in a folder of readings
EXPECTED = "DICOM, PNG or JPG radiographs, CT volumes (NIfTI, MetaImage, NRRD, DICOM series), or folders of them"


@dataclass(frozen=True)
class Found:
    """What there is to read.

    Attributes:
        images: files of radiographs.
        volumes: files of CT volumes, and folders with the slices of a series.
    """

    images: list[Path] = field(default_factory=list)
    volumes: list[Path] = field(default_factory=list)


def find_inputs(paths: Sequence[Path], output: Path) -> Found:
    """List radiographs and CT volumes of files and folders, each once, in the order given; a folder's sorted.

    A file that is given is read whatever its name: as a CT if its content is one, else as a radiograph. In a folder, files
    with the suffix or the first bytes of an image or volume count, and the DICOM slices of a CT in one folder make one volume;
    hidden files, other files, what lies in ``output`` and folders of earlier readings are left out and counted in the log.

    Raises:
        FileNotFoundError: a path does not exist.
        DatasetError: a folder holds nothing to read, or readings.
    """
    images: dict[Path, Path] = {}
    volumes: dict[Path, Path] = {}
    for path in paths:
        if path.is_dir():
            found = _found_below(path, output)
        elif path.exists():
            found = Found(volumes=[path]) if _is_volume_file(path) or is_ct_object(path) else Found(images=[path])
        else:
            raise FileNotFoundError(f"{path}: no such file or folder; expected {EXPECTED}.")
        for listed, known in ((found.images, images), (found.volumes, volumes)):
            for one in listed:
                known.setdefault(one.resolve(), one)
    return Found(list(images.values()), list(volumes.values()))


def _found_below(folder: Path, output: Path) -> Found:
    if (folder / MARK).is_file():
        raise DatasetError(f"{folder}: is a folder of readings of 'd2rnet read'; expected {EXPECTED}.")
    counts: Counter[str] = Counter()
    found = Found()
    for parent, folders, names in os.walk(folder):
        folders.sort()
        kept = [name for name in folders if Path(parent, name).resolve() != output.resolve()]
        counts["output folder"] += len(folders) - len(kept)
        folders[:] = [name for name in kept if not Path(parent, name, MARK).is_file()]
        counts["folders of readings"] += len(kept) - len(folders)
        has_slices = False
        for name in sorted(names):
            file = Path(parent, name)
            if not name.startswith(".") and _is_volume_file(file):
                found.volumes.append(file)
            elif not is_image_file(parent, name):
                counts["other files"] += 1
            elif is_ct_object(file):
                has_slices = True
            else:
                found.images.append(file)
        if has_slices:
            found.volumes.append(Path(parent))
    left_out = ", ".join(f"{count} {what}" for what, count in counts.items() if count)
    volumes = f", {len(found.volumes)} CT volumes" if found.volumes else ""
    log.info("%s: %d images%s%s", folder, len(found.images), volumes, f"; left out: {left_out}" if left_out else "")
    if not found.images and not found.volumes:
        raise DatasetError(f"{folder}: no DICOM, PNG or JPG file and no CT volume at any depth ({left_out or 'empty'}).")
    return found


def _is_volume_file(file: Path) -> bool:
    """Say whether a file counts as a CT volume: by a volume's suffix or first bytes.

    One with the suffix and other bytes counts, so that the reader refuses it by name instead of leaving it out.
    """
    if file.name.lower().endswith(VOLUME_SUFFIXES):
        return True
    try:
        file_format(file)
    except DatasetError:
        return False
    return True


def check_output(output: Path, paths: Sequence[Path], files: Sequence[Path]) -> None:
    """Refuse a folder in which a reading could take the place of somebody else's file.

    Args:
        output: folder to write to; may be new, empty, or one that this command wrote before.
        paths: what is to be read, as given.
        files: the image files found there.

    Raises:
        ConfigError: the folder is read, holds an image that is read, or holds files of another origin.
    """
    folder = output.resolve()
    if any(path.is_dir() and path.resolve() == folder for path in paths):
        raise ConfigError(f"--output {output}: is a folder that is read; its files would be read next time. Name another one.")
    inside = [file for file in files if folder in file.resolve().parents]
    if inside:
        raise ConfigError(
            f"--output {output}: holds {inside[0]}, which is read and could be overwritten. Name another folder."
        )
    if folder.is_dir() and not (folder / MARK).is_file() and any(folder.iterdir()):
        raise ConfigError(
            f"--output {output}: holds files that are not of 'd2rnet read'; they could be overwritten. Name a new folder."
        )


def reading_names(files: Iterable[Path]) -> list[str]:
    """Name each file's reading: its path below the folder that all share, without the suffix unless two would be equal."""
    absolute = [absolute_without_dots(file) for file in files]
    root = os.path.commonpath([file.parent for file in absolute])
    whole = [file.relative_to(root).as_posix() for file in absolute]
    names = [file.relative_to(root).with_name(stem_of(file)).as_posix() for file in absolute]
    while len(set(names)) < len(names):  # a whole name can be another file's stem: a.png of a.png and of a.png.dcm
        count = Counter(names)
        names = [name if count[name] == 1 else full for name, full in zip(names, whole, strict=True)]
    return names
