"""The readers of the package, each as a function of a folder of inputs: what the battery calls.

A reader answers with what was kept and what was set aside; errors of the package are the battery's to judge.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from hostile_case import READ, SET_ASIDE, Outcome

from d2rnet.cli.given_settings import given_settings
from d2rnet.ct.conversion.verify import check_table
from d2rnet.ct.sources.settings import CtSourceSettings
from d2rnet.ct.sources.tables import ct_source
from d2rnet.ct.volumes.reader import read_volume, read_volume_header
from d2rnet.cxr.annotation.confidence_filter import ConfidenceFilter, read_thresholds
from d2rnet.cxr.annotation.inputs import match_images, read_images
from d2rnet.cxr.annotation.inputs import read_reports as read_report_lines
from d2rnet.cxr.annotation.predictions import read_predictions
from d2rnet.cxr.annotation.settings import AnnotationSettings
from d2rnet.cxr.boxes.coco import load_coco
from d2rnet.cxr.conversion.box_limits import check_boxes
from d2rnet.cxr.conversion.image_conversion import ConversionJob, convert_images
from d2rnet.cxr.detector.checkpoint import load_pretrained
from d2rnet.cxr.detector.config import read_cfg
from d2rnet.cxr.images.reader import read_header, read_radiograph
from d2rnet.cxr.report_model.front_end import D2RNET
from d2rnet.cxr.sources import mimic, openi, r2gen, vindr
from d2rnet.cxr.sources.box_tables import read_box_table
from d2rnet.cxr.sources.coco import read_table as read_foreign_coco
from d2rnet.cxr.sources.settings import LabelledSettings, ReportSourceSettings
from d2rnet.cxr.sources.tables import ReportTable
from d2rnet.evaluation.report_pairs import read_pairs
from d2rnet.files.csv_tables import read_table_csv
from d2rnet.files.problems import Problems
from d2rnet.files.torch_files import load_torch
from d2rnet.findings.classes import CATEGORY_IDS
from d2rnet.report.annotation_file import load_annotation
from d2rnet.report.decoder.r2gen_weights import start_from_r2gen
from d2rnet.report.interface import make_transformer
from d2rnet.report.model_files import load_model
from d2rnet.report.settings import DecoderSettings
from d2rnet.report.text.vocabulary import load_vocabulary

Reader = Callable[[Path], Outcome]
SPLIT_COLUMNS = ("dicom_id", "study_id", "subject_id", "split")


def only_file(folder: Path) -> Path:
    """The one thing in a folder, whatever it is."""
    return next(path for path in sorted(folder.iterdir()) if not path.name.startswith("good"))


def image(folder: Path) -> Outcome:
    """Header check and decoding of one radiograph."""
    path = only_file(folder)
    header = read_header(path)
    radiograph = read_radiograph(path)
    assert radiograph.pixels.dtype == np.uint8 and radiograph.source_hw == (header.height, header.width)
    return Outcome(READ, f"{header.height} x {header.width} pixels, {header.transfer_syntax}")


def conversion(folder: Path) -> Outcome:
    """Conversion of all images of a folder to PNG, in ``output`` beside it."""
    output = folder.parent / "output"
    jobs = [ConversionJob(path, output / f"{path.stem}.png") for path in sorted(folder.iterdir())]
    results = convert_images(jobs, max_side_px=40, workers=1, manifest=output / "manifest.jsonl")
    bad = [result.reason for result in results if result.reason is not None]
    assert len(results) == len(jobs) and len(list(output.glob("*.png"))) == len(jobs) - len(bad)
    return Outcome(SET_ASIDE if bad else READ, " | ".join(map(str, bad)), len(jobs) - len(bad), len(bad))


def ct_volume(folder: Path) -> Outcome:
    """Header and voxels of one CT volume, a file or the folder of a series."""
    path = only_file(folder)
    header = read_volume_header(path)
    volume = read_volume(path)
    assert volume.hu.dtype == np.int16 and volume.hu.ndim == 3 and volume.hu.min() >= -1250
    said = "; ".join(volume.notes)
    return Outcome(READ, f"{' x '.join(map(str, volume.hu.shape))} voxels, {header.file_format}. {said}")


def ct_tables(source: str, table: str = "studies.csv") -> Reader:
    """The tables of a chest CT source, as verify_ct_inputs reads and checks them, without the volumes' headers."""

    def read(folder: Path) -> Outcome:
        problems, output = Problems(), folder.parent / "output"
        output.mkdir()
        settings = CtSourceSettings.read({"source": source, "root": str(folder), "table": table, "val_fraction": 0.3})
        found = ct_source(source).read_table(settings, problems)
        check_table(found, settings.root, output, problems)
        problems.raise_if_any()
        return Outcome(READ, f"{len(found.volumes)} volumes, {len(found.reports)} reports", len(found.volumes))

    return read


def csv_table(folder: Path) -> Outcome:
    """The table of MIMIC-CXR's splits."""
    table = read_table_csv(only_file(folder), SPLIT_COLUMNS)
    return Outcome(READ, f"{len(table)} rows", len(table))


def box_table(folder: Path) -> Outcome:
    """VinDr-CXR's box table, of images of 60 x 50 pixels; every problem is an error."""
    problems = Problems()
    rows = read_box_table(
        only_file(folder), categories=CATEGORY_IDS, image_labels=vindr.IMAGE_LABELS, has_readers=True, problems=problems
    )
    check_boxes(rows.boxes, dict.fromkeys(rows.boxes["source_id"], (60, 50)), LabelledSettings(), problems)
    problems.raise_if_any()
    kept = rows.counts["boxes_kept"] + rows.counts["rows_without_box"] + rows.counts["exact_duplicate_rows"]
    return Outcome(READ, f"{dict(rows.counts)}", kept)


def report_source(module: object) -> Reader:
    """A report source; unreadable reports are set aside, everything else that is wrong is an error."""

    def read(folder: Path) -> Outcome:
        problems = Problems()
        given = ReportSourceSettings(root=str(folder), views=())
        table: ReportTable = module.read_table(given, problems)  # type: ignore[attr-defined]
        problems.raise_if_any()
        reasons = " | ".join(f"{record['path']}: {record['reason']}" for record in table.unreadable_reports)
        section = sum(count for name, count in table.counts.items() if name.startswith("studies_without_"))
        absent = table.counts["studies_with_images_absent"] + table.counts["studies_with_empty_report"]
        kept = len(table.reports) + section + absent
        kind = SET_ASIDE if table.unreadable_reports else READ
        return Outcome(kind, reasons or f"{len(table.reports)} reports", kept, len(table.unreadable_reports))

    return read


def own_coco(folder: Path) -> Outcome:
    """A COCO json of this package."""
    document = load_coco(only_file(folder))
    return Outcome(READ, f"{len(document['images'])} images", len(document["annotations"]))


def foreign_coco(folder: Path) -> Outcome:
    """A COCO json of somebody else as labelled source."""
    problems = Problems()
    settings = LabelledSettings(root=str(folder), coco_json=only_file(folder).name)
    table = read_foreign_coco(settings, problems)
    problems.raise_if_any()
    return Outcome(READ, f"{len(table.images)} images", len(table.boxes) + table.counts["crowd_annotations_left_out"])


def annotation(folder: Path) -> Outcome:
    """annotation.json."""
    entries = [entry for split in load_annotation(only_file(folder)).values() for entry in split]
    return Outcome(READ, f"{len(entries)} entries", len(entries))


def predictions(folder: Path) -> Outcome:
    """Pseudo boxes on the images of ``good_unlabelled.json``."""
    problems = Problems()
    images = read_images(folder / "good_unlabelled.json", problems)
    boxes, counts = read_predictions([only_file(folder)], images, ConfidenceFilter.of_classes({}), problems=problems)
    problems.raise_if_any()
    return Outcome(READ, f"{len(boxes)} boxes", len(boxes) + counts["duplicates"])


def report_lines(folder: Path) -> Outcome:
    """reports.jsonl, joined with the images of ``good_unlabelled.json``."""
    problems, path = Problems(), only_file(folder)
    images = read_images(folder / "good_unlabelled.json", problems)
    reports = read_report_lines(path, problems)
    _, absent = match_images(
        images, reports, images_file=folder / "good_unlabelled.json", reports_file=path, problems=problems
    )
    problems.raise_if_any()
    return Outcome(READ, f"{len(reports)} reports, {absent} images absent", len(reports))


def unlabelled(folder: Path) -> Outcome:
    """unlabelled.json as build_annotation reads it."""
    problems = Problems()
    images = read_images(only_file(folder), problems)
    problems.raise_if_any()
    return Outcome(READ, f"{len(images.records)} images", len(images.records))


def generated(folder: Path) -> Outcome:
    """Generated reports of the entries of ``good_annotation.json``."""
    pairs = read_pairs(only_file(folder), load_annotation(folder / "good_annotation.json"))
    return Outcome(READ, f"{len(pairs.ids)} pairs", len(pairs.ids))


def thresholds(folder: Path) -> Outcome:
    """thresholds.json."""
    by_class, _ = read_thresholds(only_file(folder), "calibrated")
    return Outcome(READ, f"{len(by_class)} classes", len(by_class))


def vocabulary(folder: Path) -> Outcome:
    """vocabulary.json."""
    words = load_vocabulary(only_file(folder))
    return Outcome(READ, f"{len(words)} tokens", len(words))


def torch_file(folder: Path) -> Outcome:
    """A checkpoint or pretrained weights in PyTorch's format."""
    return Outcome(READ, f"keys {', '.join(map(str, load_torch(only_file(folder))))}")


def pretrained(folder: Path) -> Outcome:
    """Pretrained weights of a detector, here for a network that no file fits."""
    from torch import nn

    load_pretrained(only_file(folder), nn.Linear(3, 2))
    return Outcome(READ, "loaded")


def report_model(folder: Path) -> Outcome:
    """The folder of train_report_model."""
    import torch

    loaded = load_model(folder, torch.device("cpu"), D2RNET)
    return Outcome(READ, f"{len(loaded.vocabulary)} tokens")


def detector_config(folder: Path) -> Outcome:
    """The configuration of train_detector."""
    read_cfg(folder)
    return Outcome(READ, "read")


def r2gen_checkpoint(folder: Path) -> Outcome:
    """A checkpoint of R2Gen to start from."""
    settings = DecoderSettings()
    start_from_r2gen(make_transformer(settings, num_tokens=9), only_file(folder), settings)
    return Outcome(READ, "taken")


def settings_file(folder: Path) -> Outcome:
    """A file for ``--settings``."""
    given_settings(AnnotationSettings, (), str(only_file(folder)), [])
    return Outcome(READ, "valid")


READERS: dict[str, Reader] = {
    "DICOM": image,
    "PNG, JPG": image,
    "image conversion": conversion,
    "CT volume": ct_volume,
    "CT series": ct_volume,
    "CT-RATE": ct_tables("ct_rate"),
    "RadGenome": ct_tables("radgenome"),
    "CTRG": ct_tables("ctrg", "reports.json"),
    "CT folder": ct_tables("folder"),
    "CSV table": csv_table,
    "box table": box_table,
    "MIMIC-CXR": report_source(mimic),
    "Open-i": report_source(openi),
    "R2Gen annotation": report_source(r2gen),
    "COCO, own": own_coco,
    "COCO, foreign": foreign_coco,
    "annotation.json": annotation,
    "predictions": predictions,
    "reports.jsonl": report_lines,
    "unlabelled.json": unlabelled,
    "generated reports": generated,
    "thresholds.json": thresholds,
    "vocabulary.json": vocabulary,
    "weights (.pth)": torch_file,
    "weights (.pkl)": pretrained,
    "report model": report_model,
    "detector config": detector_config,
    "R2Gen checkpoint": r2gen_checkpoint,
    "settings file": settings_file,
}
