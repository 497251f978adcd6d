"""make-demo-cohort: a seeded synthetic cohort in the real layouts of VinDr-CXR and MIMIC-CXR-JPG.

Writes ``<output>/vindr/`` (demo_vindr.py), ``<output>/mimic/`` (demo_mimic.py), ``truth.jsonl`` (what was drawn, for tests
only: no stage reads it), ``run.json`` and, last, ``cohort.json``. The folder is built beside ``output`` and renamed at the
end, so half a cohort is never seen. The same settings give the same files whatever the number of workers: every image has
its own seed.
"""

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from itertools import count
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from d2rnet.cxr.demo import mimic as demo_mimic
from d2rnet.cxr.demo import reports as demo_reports
from d2rnet.cxr.demo import vindr as demo_vindr
from d2rnet.cxr.demo.anatomy import sample_anatomy, sample_frame
from d2rnet.cxr.demo.exposure import draw_lateral, expose
from d2rnet.cxr.demo.findings import Box, Finding, Style, deal_findings
from d2rnet.cxr.demo.follow_ups import go_on
from d2rnet.cxr.demo.lesions import render_frontal
from d2rnet.cxr.demo.settings import DemoSettings
from d2rnet.errors import D2RNetError
from d2rnet.files.documents import write_jsonl
from d2rnet.runs.cohort_folder import make_cohort_folder
from d2rnet.runs.parallel import map_in_processes
from d2rnet.runs.progress import track

log = logging.getLogger(__name__)
_CHUNK = 8
_VINDR, _PATIENT, _STUDY, _PLAN, _FOLLOW_UPS = range(5)  # first word of the seed of each kind of item
Record = dict[str, Any]


@dataclass(frozen=True)
class _VindrItem:
    """One VinDr-style image to draw."""

    number: int
    image_id: str
    split: str
    findings: tuple[Finding, ...]


def make_demo_cohort(*, output: Path, workers: int, settings: DemoSettings) -> None:
    """Draw the demo cohort.

    Args:
        output: folder to make; an older demo cohort there is replaced, anything else is refused.
        workers: processes.
        settings: section ``cxr.data.demo`` of config.yaml.

    Raises:
        D2RNetError: ``output`` holds something that is not a demo cohort, or a worker process died.
    """
    counts = make_cohort_folder(
        Path(output),
        lambda folder: _fill(folder, workers, settings),
        command="make-demo-cohort",
        seed=settings.seed,
        settings=settings,
    )
    log.info("demo cohort in %s: %s", output, counts["images"])


def _fill(folder: Path, workers: int, settings: DemoSettings) -> Record:
    """Draw everything below ``folder``; return the counts."""
    rng = np.random.default_rng([settings.seed, _PLAN])
    vindr_items = _plan_vindr(settings, rng)
    study_counts = {
        "train": settings.report_train_studies,
        "val": settings.report_val_studies,
        "test": settings.report_test_studies,
    }
    plans = demo_mimic.plan_studies(study_counts, rng)
    if settings.follow_ups:
        plans = go_on(plans, np.random.default_rng([settings.seed, _FOLLOW_UPS]))
    for path in (
        "vindr/train",
        "vindr/test",
        "vindr/annotations",
        *{f"mimic/{plan.patient_folder}/s{plan.study_id}" for plan in plans},
    ):
        (folder / path).mkdir(parents=True, exist_ok=True)
    jobs: list[tuple[Callable[..., list[Record]], Path, Any, DemoSettings]] = [
        *((_draw_vindr, folder / "vindr", item, settings) for item in vindr_items),
        *((_draw_study, folder / "mimic", plan, settings) for plan in plans),
    ]
    done = map_in_processes(_do, jobs, workers=workers, what="draw demo cohort", chunk_size=_CHUNK)
    results = list(track(done, total=len(jobs), what="draw demo cohort", unit="item"))
    vindr = [record for records in results[: len(vindr_items)] for record in records]
    mimic = [record for records in results[len(vindr_items) :] for record in records]
    _write_vindr_tables(folder / "vindr" / "annotations", vindr)
    images = {record["image_id"]: record for record in mimic}
    texts = {record["study_id"]: f"{record['report']['findings']} {record['report']['impression']}" for record in mimic}
    demo_mimic.write_tables(folder / "mimic", plans, images, texts)
    truth = [
        {key: value for key, value in record.items() if key not in ("readers", "reader_boxes")} for record in vindr + mimic
    ]
    write_jsonl(folder / "truth.jsonl", truth)
    return _count(vindr, mimic, plans)


def _plan_vindr(settings: DemoSettings, rng: np.random.Generator) -> list[_VindrItem]:
    items: list[_VindrItem] = []
    numbers = count()
    for split, number in (("train", settings.labelled_train_images), ("test", settings.labelled_test_images)):
        for findings in deal_findings(number, rng):
            image_id = rng.bytes(16).hex()
            items.append(_VindrItem(next(numbers), image_id, split, tuple(findings)))
    return items


@cache
def _prepare_process() -> None:
    """One OpenCV thread, and a memory allocator that keeps freed pictures.

    Freeing one large block makes glibc serve later ones from its heap instead of asking the kernel for fresh pages each time;
    it halves the time to draw a picture (measured 18 against 10 ms at 448 px).
    """
    cv2.setNumThreads(1)
    large = np.empty(28 << 20, np.uint8)
    del large


def _do(job: tuple[Any, ...]) -> list[Record]:
    _prepare_process()
    function, *arguments = job
    return function(*arguments)


def _draw_vindr(folder: Path, item: _VindrItem, settings: DemoSettings) -> list[Record]:
    """Draw and write one VinDr-style image and have it read."""
    rng = np.random.default_rng([settings.seed, _VINDR, item.number])
    style = Style.of_difficulty(settings.difficulty)
    frame = sample_frame(rng, settings.size_px)
    attenuation, boxes = render_frontal(sample_anatomy(rng), frame, list(item.findings), style, rng)
    demo_vindr.write_dicom(
        folder / item.split / f"{item.image_id}.dicom", expose(attenuation, frame, style, rng), rng, item.number + 1
    )
    truth = [(finding.category, box) for finding, _, box in boxes]
    if item.split == "train":
        readers, drawn = demo_vindr.read_by_readers(truth, frame.image_hw, rng)
    else:
        readers = [""]
        drawn = [demo_vindr.ReaderBox("", category, box) for category, box in truth]
    height, width = frame.image_hw
    record = {"image_id": item.image_id, "source": "vindr", "split": item.split, "height": height, "width": width}
    return [{**record, "boxes": _truth_boxes(boxes), "readers": readers, "reader_boxes": drawn}]


def _draw_study(folder: Path, plan: demo_mimic.StudyPlan, settings: DemoSettings) -> list[Record]:
    """Draw and write the images and the report of one study."""
    rng = np.random.default_rng([settings.seed, _STUDY, plan.number])
    anatomy = sample_anatomy(np.random.default_rng([settings.seed, _PATIENT, plan.patient_number]))
    style = Style.of_difficulty(settings.difficulty)
    report = demo_reports.write_report(plan.findings, rng, plan.changes)
    told = demo_reports.Told(plan.indication, plan.is_follow_up) if plan.indication else None
    text = demo_reports.format_report(report, plan.variant, plan.views, rng, told)
    (folder / plan.report_path).write_text(text, encoding="utf-8", newline="\n")
    records = []
    for view, dicom_id in zip(plan.views, plan.dicom_ids, strict=True):
        frame = sample_frame(rng, settings.size_px)
        boxes: list[tuple[Finding, str, Box]] = []
        if view == "LATERAL":
            attenuation = draw_lateral(frame, rng)
        else:
            attenuation, boxes = render_frontal(anatomy, frame, list(plan.findings), style, rng)
        picture = np.round(255 * expose(attenuation, frame, style, rng, marker=view != "LATERAL")).astype(np.uint8)
        path = folder / plan.image_path(dicom_id)
        if not cv2.imwrite(str(path), picture, [cv2.IMWRITE_JPEG_QUALITY, 95]):
            raise D2RNetError(f"{path}: could not be written; expected a writable folder with free space.")
        truth = {"height": picture.shape[0], "width": picture.shape[1], "boxes": _truth_boxes(boxes)}
        records.append({**_study_record(plan, report), "image_id": dicom_id, "view": view, **truth})
    return records


def _study_record(plan: demo_mimic.StudyPlan, report: demo_reports.Report) -> Record:
    """Truth that all images of a study share."""
    return {
        "source": "mimic",
        "split": plan.split,
        "subject_id": plan.subject_id,
        "study_id": plan.study_id,
        "header_variant": plan.variant,
        "report": asdict(report),
        "facts": [{**asdict(finding), "size_word": finding.size_word} for finding in plan.findings],
        **({"changes": plan.changes, "indication": plan.indication} if plan.indication else {}),
    }


def _truth_boxes(boxes: Iterable[tuple[Finding, str, Box]]) -> list[Record]:
    return [
        {
            "class": f.category,
            "side": side,
            "zone": f.zone,
            "size_word": f.size_word,
            "bbox_xyxy": [round(value, 2) for value in box],
        }
        for f, side, box in boxes
    ]


def _write_vindr_tables(folder: Path, records: list[Record]) -> None:
    for split in ("train", "test"):
        rows = [
            {"image_id": record["image_id"], "readers": record["readers"], "boxes": record["reader_boxes"]}
            for record in records
            if record["split"] == split
        ]
        consensus = split == "test"
        boxes = demo_vindr.annotation_table(rows, consensus=consensus)
        boxes.to_csv(folder / f"annotations_{split}.csv", index=False, lineterminator="\n")
        labels = demo_vindr.image_label_table(rows, consensus=consensus)
        labels.to_csv(folder / f"image_labels_{split}.csv", index=False, lineterminator="\n")


def _count(vindr: list[Record], mimic: list[Record], plans: Sequence[demo_mimic.StudyPlan]) -> Record:
    images = Counter(f"{record['source']}_{record['split']}" for record in vindr + mimic)
    return {
        "images": dict(images),
        "normal_images": sum(not record["boxes"] for record in vindr),
        "boxes_by_class": dict(sorted(Counter(box["class"] for record in vindr for box in record["boxes"]).items())),
        "patients": len({plan.subject_id for plan in plans}),
        "studies": dict(Counter(plan.split for plan in plans)),
        "views": dict(sorted(Counter(record["view"] for record in mimic).items())),
        "header_variants": dict(sorted(Counter(plan.variant for plan in plans).items())),
    }
