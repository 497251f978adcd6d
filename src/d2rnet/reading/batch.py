"""The command 'd2rnet read': files and folders in; text, JSON, pictures and pages out.

What is read says which models read it. Files are read one after the other, models loaded once. A file that cannot be read is
named at the end and in failures.jsonl; the others are not affected.
"""

import json as json_text
import logging
import os
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from d2rnet.errors import ConfigError, D2RNetError, ToolError
from d2rnet.exit_codes import ExitCode
from d2rnet.files.atomic import write_text
from d2rnet.files.documents import write_jsonl
from d2rnet.files.names import absolute_without_dots
from d2rnet.reading.box_files import boxes_of_files, boxes_of_study, read_boxes
from d2rnet.reading.coco_export import CocoExport
from d2rnet.reading.content import NOTICE
from d2rnet.reading.ct_result import CtReading
from d2rnet.reading.inputs import MARK, Found, check_output, find_inputs, reading_names
from d2rnet.reading.own_boxes import OwnBox, check_classes, parse_box
from d2rnet.reading.result import KINDS, Reading, printable, stem_of
from d2rnet.reading.told import Told, told_of
from d2rnet.runs.progress import track

if TYPE_CHECKING:
    from d2rnet.reading.dicom.documents import DicomExport

log = logging.getLogger(__name__)
FAILURES = "failures.jsonl"
DICOM = "dicom"  # folder of the documents
MOST_NAMED = 10  # failures on the terminal; all are in the file


@dataclass(frozen=True)
class Task:
    """One reading to make: its name, which may hold folders, its image files or its volume, and what makes it."""

    name: str
    files: tuple[Path, ...]
    make: "Maker"


Maker = Callable[[Task], Reading | CtReading]


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
    box: Sequence[str] = (),
    boxes: Path | None = None,
    no_detector: bool = False,
    indication: str | None = None,
    prior: Path | None = None,
    dicom_sr: bool = False,
    structures: Path = Path("results/ct/train_structures"),
    ct_report_model: Path = Path("results/ct/train_ct_report_model"),
) -> int:
    """Read radiographs and CT volumes and write a JSON document and a page for each; show the findings.

    Args:
        path: files of radiographs or volumes, and folders of which all at any depth are read.
        detector: folder of train-detector.
        report_model: folder of train-report-model.
        output: folder to write to.
        device: auto, cpu, cuda or cuda:N.
        score_threshold: least score of a box of any class; None: the thresholds of the run.
        study: all radiographs are views of one study.
        coco: write a COCO data set of all readings as well.
        json: show JSON lines instead of text.
        strict: a file that is doubtful as a frontal chest radiograph, or an odd CT, fails.
        box: boxes of a person on the only radiograph, see :func:`d2rnet.reading.own_boxes.parse_box`.
        boxes: file of such boxes on any number of them, see :func:`d2rnet.reading.own_boxes.read_boxes`.
        no_detector: no detector is run, and its folder need not exist.
        indication: why the study was taken.
        prior: the study before it, see :func:`d2rnet.reading.told.read_prior`.
        dicom_sr: write DICOM documents of each reading as well: a report, presentation states; what is no DICOM file fails.
        structures: folder of train-structures, for CT.
        ct_report_model: folder of train-ct-report-model, for CT.

    Returns:
        Exit code: 0 if all was read, 3 if some files failed, 2 if all did.

    Raises:
        FileNotFoundError: a path, a model folder or its reading.json does not exist.
        DatasetError: a folder holds nothing to read, or a box is none; the message names where it was given.
        CheckpointError: a model folder is not one of this version.
        ConfigError: no such device, a setting is wrong, or options do not go together.
        ToolError: highdicom, or detectron2 for radiographs, is not installed.
    """
    dicom = _new_dicom(output / DICOM) if dicom_sr else None
    found = _find(path, output)
    makers: list[Maker] = []
    own = _own_boxes(found.images, box, boxes, no_detector=no_detector)
    told = told_of(indication, prior, found.images, study=study)
    if found.images:
        options = {"device": device, "score_threshold": score_threshold, "run_detector": not no_detector}
        makers.append(_radiograph_maker(own, told, detector, report_model, strict=strict, options=options))
    if found.volumes:
        makers.append(_ct_maker(structures, ct_report_model, strict=strict, device=device))
    tasks = _tasks(path, found, study=study, makers=makers)
    return _read_and_tell(tasks, output, dicom, coco=coco, as_json=json)


def _exit_code(failures: int, tasks: int) -> int:
    if not failures:
        return ExitCode.DONE
    return ExitCode.REFUSED if failures == tasks else ExitCode.PARTLY


def _find(path: list[Path], output: Path) -> Found:
    """Find what is to be read, and refuse an output that is not for it."""
    found = find_inputs(path, output)
    check_output(output, path, [*found.images, *found.volumes])
    return found


def _radiograph_maker(
    own: Mapping[Path, Sequence[OwnBox]],
    told: Told,
    detector: Path,
    report_model: Path,
    *,
    strict: bool,
    options: Mapping[str, Any],
) -> Maker:
    """Load the models for radiographs; return what reads with them, and with the boxes and words of a person."""
    models = _radiograph_loader()(detector, report_model, **options)
    return lambda task: models.read_study(
        task.files, name=task.name, strict=strict, boxes=boxes_of_study(task.files, own), told=told
    )


def _ct_maker(structures: Path, report_model: Path, *, strict: bool, device: str) -> Maker:
    """Load the models for CT volumes; return what reads with them."""
    from d2rnet.reading.ct import load_ct_models

    models = load_ct_models(structures, report_model, device=device)
    return lambda task: models.read(task.files[0], name=task.name, strict=strict)


def _own_boxes(
    images: Sequence[Path], box: Sequence[str], boxes: Path | None, *, no_detector: bool
) -> dict[Path, list[OwnBox]]:
    """Return the boxes that a person drew on each radiograph.

    Raises:
        ConfigError: there is no radiograph for them, or not one alone for ``--box``; without a detector, there are none, or
            one has no class.
        DatasetError: a box is none, or a file names no image that is read, or one of several.
    """
    if no_detector and not box and boxes is None:
        raise ConfigError("--no-detector: got no boxes; expected yours, with --box or --boxes.")
    if not box and boxes is None:
        return {}
    if not images:
        raise ConfigError("--box, --boxes: got no radiograph; expected one or more. A CT is read without boxes.")
    if box and len(images) > 1:
        raise ConfigError(
            f"--box: got {len(images)} radiographs; expected one. Give boxes of several in a file, with --boxes."
        )
    own = boxes_of_files(read_boxes(boxes), images, source=boxes) if boxes else {}
    if box:
        own.setdefault(images[0], []).extend(map(parse_box, box))
    if no_detector:
        check_classes(one for drawn in own.values() for one in drawn)
    return own


def _radiograph_loader() -> Callable[..., Any]:
    """Import what reads radiographs: detectron2 takes seconds to load, and a CT does not need it.

    Raises:
        ToolError: detectron2 is not installed.
    """
    try:
        from d2rnet.reading.cxr import load_models
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "detectron2":
            raise
        raise ToolError(
            "radiographs are read with detectron2, which is not installed; CTs are read without it. docs/how-to/install.md, "
            "'Only to read images', has the command."
        ) from error
    return load_models


def _new_export(folder: Path) -> CocoExport:
    shutil.rmtree(folder, ignore_errors=True)  # pictures of an earlier call would count as part of this one
    return CocoExport(folder)


def _new_dicom(folder: Path) -> "DicomExport":
    """Import what writes DICOM documents: highdicom is an extra of its own.

    Raises:
        ToolError: highdicom is not installed.
    """
    try:
        from d2rnet.reading.dicom.documents import DicomExport
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "highdicom":
            raise
        raise ToolError(
            "--dicom-sr writes with highdicom, which is not installed. Install it: python -m pip install '.[dicom]', in the "
            "checkout of the project."
        ) from error
    return DicomExport(folder)


def _tell_failures(failures: Sequence[dict[str, str]], tasks: int, output: Path, *, as_json: bool) -> None:
    """Write failures to their file, where there are any, name the first of them, and say how many were read."""
    (output / FAILURES).unlink(missing_ok=True)
    if failures:
        write_jsonl(output / FAILURES, failures)
        for failure in failures[:MOST_NAMED]:
            log.error("failed: %s", failure["error"])
        log.error("%d of %d failed; all of them, one per line: %s", len(failures), tasks, output / FAILURES)
    if not as_json:
        _show(f"{tasks - len(failures)} of {tasks} read; files in {output}\n{NOTICE}")


def _tasks(paths: Sequence[Path], found: Found, *, study: bool, makers: Sequence[Maker]) -> list[Task]:
    """Return one reading a file, or one of all radiographs, named after the folder that was given or the first of them.

    Args:
        paths: as given.
        found: radiographs and volumes.
        study: all radiographs are one study.
        makers: of readings of radiographs, if there are any, and of volumes, if there are any.
    """
    tasks: list[Task] = []
    images = found.images
    if study and images:
        alone = len(paths) == 1 and paths[0].is_dir() and not found.volumes
        tasks.append(Task(absolute_without_dots(paths[0]).name if alone else stem_of(images[0]), tuple(images), makers[0]))
        images = []
    files = [*images, *found.volumes]
    names = reading_names(files) if files else []
    for place, (name, file) in enumerate(zip(names, files, strict=True)):
        tasks.append(Task(name, (file,), makers[0] if place < len(images) else makers[-1]))
    return tasks


def _read_and_tell(tasks: Sequence[Task], output: Path, dicom: "DicomExport | None", *, coco: bool, as_json: bool) -> int:
    """Mark the folder, make all readings and say what failed; return the exit code."""
    write_text(output / MARK, "Written by 'd2rnet read', which may replace the files of this folder.\n")
    export = _new_export(output / "coco") if coco else None
    failures = _read_all(tasks, output, export, dicom, as_json=as_json)
    _tell_failures(failures, len(tasks), output, as_json=as_json)
    return _exit_code(len(failures), len(tasks))


def _read_all(
    tasks: Sequence[Task], output: Path, export: CocoExport | None, dicom: "DicomExport | None", *, as_json: bool
) -> list[dict[str, str]]:
    """Make, write and show each reading; return the failures."""
    if dicom is not None:
        shutil.rmtree(dicom.folder, ignore_errors=True)  # who sends the folder sends what this call made, nothing else
    failures = []
    for task in track(tasks, total=len(tasks), what="read", unit="study" if len(tasks[0].files) > 1 else "file"):
        try:
            sources = dicom.sources(task.files) if dicom is not None else []  # refused before anything is read
            reading = task.make(task)
            documents = dicom.documents(reading, sources) if dicom is not None else {}
            reading.save(output)
            if dicom is not None:
                dicom.write(documents, task.name)
            if export is not None and isinstance(reading, Reading):
                export.add(reading)
        except (D2RNetError, MemoryError) as error:
            text = str(error) or f"{printable(task.files[0])}: not enough memory"
            files = ", ".join(map(printable, task.files))
            failures.append({"name": printable(Path(task.name)), "files": files, "error": text})
            for kind in KINDS:  # an earlier reading of this name is not one of this file
                (output / f"{task.name}.{kind}").unlink(missing_ok=True)
            continue
        _show(_json_line(reading) if as_json else reading.to_text() + "\n")
    if export is not None:
        export.write()
    return failures


def _json_line(reading: Reading | CtReading) -> str:
    return json_text.dumps(reading.to_json(), ensure_ascii=False, allow_nan=False)


def _show(text: str) -> None:
    """Print to standard output, above a progress bar if one is shown."""
    try:
        tqdm.write(text, file=sys.stdout)
        sys.stdout.flush()
    except BrokenPipeError:  # who listened has gone, as 'head' does; the files are still wanted
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
