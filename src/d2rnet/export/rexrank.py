"""The answer to a test set of ReXrank, a leaderboard of report generation: its JSON in, the same with predictions out.

Reads: a JSON of ReXrank, ``{study: {"image_path": [...], "key_image_path": ..., ...}}``, its paths below a folder of images,
with or without a slash in front. Writes the same records with ``model_prediction``, the findings as a person would write them;
what is NaN there is null here. Every SAVED_EACH studies the file is written anew; studies that it holds are not read again.

Source: ReXrank, https://github.com/rajpurkarlab/ReXrank, data/READMD.md and example_files/submission_tutorial.md.
"""

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from d2rnet.errors import D2RNetError, DatasetError
from d2rnet.exit_codes import ExitCode
from d2rnet.files.documents import read_json, write_json
from d2rnet.files.names import is_path_below
from d2rnet.reading.cxr import Models, load_models
from d2rnet.runs.progress import track

log = logging.getLogger(__name__)
PREDICTION = "model_prediction"
SAVED_EACH = 50
MOST_NAMED = 10
Study = dict[str, Any]


def export_rexrank(
    *,
    input_json: Path,
    output_json: Path,
    img_root: Path,
    all_views: bool,
    detector: Path,
    report_model: Path,
    device: str,
) -> int:
    """Write the answers.

    Args:
        input_json: JSON of a test set.
        output_json: JSON to write.
        img_root: folder of the images.
        all_views: read all images of a study together; otherwise its ``key_image_path``, the frontal one.
        detector: folder of train-detector.
        report_model: folder of train-report-model.
        device: auto, cpu, cuda or cuda:N.

    Returns:
        Exit code: 0 if all studies were read, 3 if some failed, 2 if all did. The same call tries those again.

    Raises:
        DatasetError: a file is not a JSON of ReXrank.
        FileNotFoundError: a model folder is missing.
        CheckpointError: the models cannot be loaded.
    """
    studies = read_test_set(input_json, all_views=all_views)
    answers = {name: study for name, study in _answers_of(output_json).items() if name in studies}
    waiting = [name for name in studies if name not in answers]
    models = load_models(detector, report_model, device=device)
    failures = []
    for number, name in enumerate(track(waiting, total=len(waiting), what="read", unit="image"), start=1):
        try:
            prediction = _prediction(models, img_root, studies[name], all_views=all_views)
        except (D2RNetError, FileNotFoundError) as error:
            failures.append(f"study {name}: {error}")
            continue
        answers[name] = {**studies[name], PREDICTION: prediction}
        if number % SAVED_EACH == 0:
            write_json(output_json, answers)
    write_json(output_json, {name: answers[name] for name in studies if name in answers})
    for failure in failures[:MOST_NAMED]:
        log.error("failed: %s", failure)
    log.info("export rexrank: %d of %d studies, %d failed: %s", len(answers), len(studies), len(failures), output_json)
    if not failures:
        return ExitCode.DONE
    return ExitCode.PARTLY if answers else ExitCode.REFUSED


def read_test_set(path: Path, *, all_views: bool = False) -> dict[str, Study]:
    """Read a JSON of ReXrank.

    Args:
        path: the file.
        all_views: ``image_path`` must name images; otherwise ``key_image_path`` one.

    Returns:
        Study -> its record, NaN replaced by None.

    Raises:
        DatasetError: it is of another layout; the first study that is so is named.
    """
    document = read_json(path)
    if not isinstance(document, dict) or not document:
        got = "an empty object" if document == {} else f"a {type(document).__name__}"
        raise DatasetError(f"{path}: got {got}; expected {{study: record}}. Fetch ReXrank's file again.")
    for name, study in document.items():
        paths = list(_paths(study, all_views=all_views)) if isinstance(study, dict) else []
        if not paths or not all(map(is_path_below, paths)):
            key = "image_path, a list of paths" if all_views else "key_image_path, a path"
            raise DatasetError(
                f"{path}: study {name[:80]}: got {str(paths)[:200]}; expected {key} below the folder of images. Fetch "
                "ReXrank's file again."
            )
    return {name: {key: _without_nan(value) for key, value in study.items()} for name, study in document.items()}


def _paths(study: Study, *, all_views: bool) -> Iterator[Any]:
    """Yield the paths of the images to read, relative: those of MIMIC-CXR begin with a slash."""
    for path in study.get("image_path") or [] if all_views else [study.get("key_image_path")]:
        yield path.lstrip("/") if isinstance(path, str) else path


def _prediction(models: Models, img_root: Path, study: Study, *, all_views: bool) -> str:
    files = [img_root / path for path in _paths(study, all_views=all_views)]
    if missing := [file for file in files if not file.is_file()]:
        raise FileNotFoundError(f"{missing[0]}: no such file; expected an image of the study below {img_root}.")
    return models.read_study(files).findings


def _answers_of(path: Path) -> dict[str, Study]:
    """Return the studies that an earlier call answered."""
    if not path.exists():
        return {}
    document = read_json(path)
    records = document.values() if isinstance(document, dict) else [None]
    if not all(isinstance(study, dict) and isinstance(study.get(PREDICTION), str) for study in records):
        raise DatasetError(f"{path}: is no answer to a test set of ReXrank, and would be replaced. Name another output file.")
    return document


def _without_nan(value: Any) -> Any:
    return None if isinstance(value, float) and value != value else value
