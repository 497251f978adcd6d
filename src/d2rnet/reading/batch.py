"""The command 'd2rnet read': files and folders in; text, JSON, pictures and pages out.

Files are read one after the other, models loaded once. A file that cannot be read is named at the end and in failures.jsonl;
the others are not affected.
"""

import json as json_text
import logging
import os
import shutil
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from d2rnet.cxr.sources.folder import is_image_file
from d2rnet.errors import ConfigError, D2RNetError, DatasetError
from d2rnet.exit_codes import ExitCode
from d2rnet.files.atomic import write_text
from d2rnet.files.documents import write_jsonl
from d2rnet.reading.coco_export import CocoExport
from d2rnet.reading.content import NOTICE
from d2rnet.reading.cxr import Models, load_models
from d2rnet.reading.result import KINDS, Reading, printable, stem_of
from d2rnet.runs.progress import track

log = logging.getLogger(__name__)
FAILURES = "failures.jsonl"
MARK = ".d2rnet-read"  # in a folder of readings
MOST_NAMED = 10  # failures on the terminal; all are in the file


@dataclass(frozen=True)
class Task:
    """One reading to make: its name, which may hold folders, and its image files."""

    name: str
    files: tuple[Path, ...]


def read_paths(
    *,
    path: list[Path],
    detector: Path,
    report_model: Path,
    output: Path,
    device: str,
    score_threshold: float | None,
    study: bool,
    coco: bool,
    json: bool,
    strict: bool = False,
) -> int:
    """Read radiographs and write a JSON document, a picture and a page for each; show the findings.

    Args:
        path: image files, and folders whose image files at any depth are read.
        detector: folder of train-detector.
        report_model: folder of train-report-model.
        output: folder to write to.
        device: auto, cpu, cuda or cuda:N.
        score_threshold: least score of a box of any class; None: the thresholds of the run.
        study: all images are views of one study.
        coco: write a COCO data set of all readings as well.
        json: show JSON lines instead of text.
        strict: a file that is doubtful as a frontal chest radiograph fails.

    Returns:
        Exit code: 0 if all was read, 3 if some files failed, 2 if all did.

    Raises:
        FileNotFoundError: a path, a model folder or its reading.json does not exist.
        DatasetError: a folder holds no image.
        CheckpointError: a model folder is not one of this version.
        ConfigError: no such device, or a setting is wrong.
    """
    files = find_images(path, output)
    check_output(output, path, files)
    tasks = _tasks(path, files, study=study)
    models = load_models(detector, report_model, device=device, score_threshold=score_threshold)
    write_text(output / MARK, "Written by 'd2rnet read', which may replace the files of this folder.\n")
    if coco:
        shutil.rmtree(output / "coco", ignore_errors=True)  # pictures of an earlier call would count as part of this one
    export = CocoExport(output / "coco") if coco else None
    failures = _read_all(models, tasks, output, export, as_json=json, strict=strict)
    if export is not None:
        export.write()
    (output / FAILURES).unlink(missing_ok=True)
    if failures:
        write_jsonl(output / FAILURES, failures)
        for failure in failures[:MOST_NAMED]:
            log.error("failed: %s", failure["error"])
        log.error("%d of %d failed; all of them, one per line: %s", len(failures), len(tasks), output / FAILURES)
    if not json:
        _show(f"{len(tasks) - len(failures)} of {len(tasks)} read; files in {output}\n{NOTICE}")
    if not failures:
        return ExitCode.DONE
    return ExitCode.REFUSED if len(failures) == len(tasks) else ExitCode.PARTLY


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


def _tasks(paths: Sequence[Path], files: Sequence[Path], *, study: bool) -> list[Task]:
    """Return one reading a file, or one of all files, named after the folder that was given or the first of them."""
    if not study:
        return [Task(name, (file,)) for name, file in zip(reading_names(files), files, strict=True)]
    name = paths[0].absolute().name if len(paths) == 1 and paths[0].is_dir() else stem_of(files[0])
    return [Task(name, tuple(files))]


def _read_all(
    models: Models, tasks: Sequence[Task], output: Path, export: CocoExport | None, *, as_json: bool, strict: bool
) -> list[dict[str, str]]:
    """Make, write and show each reading; return the failures."""
    failures = []
    for task in track(tasks, total=len(tasks), what="read", unit="study" if len(tasks[0].files) > 1 else "image"):
        try:
            reading = models.read_study(task.files, name=task.name, strict=strict)
            reading.save(output)
            if export is not None:
                export.add(reading)
        except (D2RNetError, MemoryError) as error:
            text = str(error) or f"{printable(task.files[0])}: not enough memory"
            files = ", ".join(map(printable, task.files))
            failures.append({"name": printable(Path(task.name)), "files": files, "error": text})
            for kind in KINDS:  # an earlier reading of this name is not one of this file
                (output / f"{task.name}.{kind}").unlink(missing_ok=True)
            continue
        _show(_json_line(reading) if as_json else reading.to_text() + "\n")
    return failures


def _json_line(reading: Reading) -> str:
    return json_text.dumps(reading.to_json(), ensure_ascii=False, allow_nan=False)


def _show(text: str) -> None:
    """Print to standard output, above a progress bar if one is shown."""
    try:
        tqdm.write(text, file=sys.stdout)
        sys.stdout.flush()
    except BrokenPipeError:  # who listened has gone, as 'head' does; the files are still wanted
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def find_images(paths: Sequence[Path], output: Path) -> list[Path]:
    """List the image files of files and folders, each once, in the order given; a folder's sorted.

    A file that is given is read whatever its name. In a folder, files with the suffix of an image or with an image's first
    bytes count; hidden files, other files and what lies in ``output`` are left out and counted in the log.

    Raises:
        FileNotFoundError: a path does not exist.
        DatasetError: a folder holds no image.
    """
    found: dict[Path, Path] = {}
    for path in paths:
        if path.is_dir():
            images = _images_below(path, output)
        elif path.exists():
            images = [path]
        else:
            raise FileNotFoundError(f"{path}: no such file or folder; expected DICOM, PNG or JPG files, or folders of them.")
        for image in images:
            found.setdefault(image.resolve(), image)
    return list(found.values())


def _images_below(folder: Path, output: Path) -> list[Path]:
    counts: Counter[str] = Counter()
    images = []
    for parent, folders, names in os.walk(folder):
        kept = [name for name in sorted(folders) if Path(parent, name).resolve() != output.resolve()]
        counts["output folder"] += len(folders) - len(kept)
        folders[:] = kept
        for name in sorted(names):
            if is_image_file(parent, name):
                images.append(Path(parent, name))
            else:
                counts["other files"] += 1
    left_out = ", ".join(f"{count} {what}" for what, count in counts.items() if count)
    log.info("%s: %d images%s", folder, len(images), f"; left out: {left_out}" if left_out else "")
    if not images:
        raise DatasetError(f"{folder}: no DICOM, PNG or JPG file at any depth ({left_out or 'empty'}).")
    return images


def reading_names(files: Iterable[Path]) -> list[str]:
    """Name each file's reading: its path below the folder that all share, without the suffix unless two would be equal."""
    absolute = [file.absolute() for file in files]
    root = os.path.commonpath([file.parent for file in absolute])
    whole = [file.relative_to(root).as_posix() for file in absolute]
    names = [file.relative_to(root).with_name(stem_of(file)).as_posix() for file in absolute]
    while len(set(names)) < len(names):  # a whole name can be another file's stem: a.png of a.png and of a.png.dcm
        count = Counter(names)
        names = [name if count[name] == 1 else full for name, full in zip(names, whole, strict=True)]
    return names
