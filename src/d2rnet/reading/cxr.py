"""Both models in memory, and one image or study through them: convert, detect, filter, write; with boxes of a person, too.

Each step is the workflow's own: the reader of convert_unlabelled, the network of predict_boxes with its rounding, the
confidence filter of build_annotation, generate_reports on the entry that build_annotation would have made.
"""

import logging
import os
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from detectron2.config import CfgNode
from torch import nn

from d2rnet.cxr.annotation.build import EntryWriter, keep_boxes
from d2rnet.cxr.annotation.confidence_filter import ConfidenceFilter
from d2rnet.cxr.annotation.inputs import ImageTable
from d2rnet.cxr.annotation.predictions import PseudoBoxes, confident_boxes
from d2rnet.cxr.detector.config import CONFIG_NAME, TEACHER_NAME
from d2rnet.cxr.detector.predict import classify_boxes, detect_batch, load_detector, network_input
from d2rnet.cxr.images.gate import find_doubts
from d2rnet.cxr.images.radiograph import Radiograph, RadiographHeader
from d2rnet.cxr.images.reader import look_at, read_radiograph_at
from d2rnet.cxr.images.views import UNKNOWN, shows_view
from d2rnet.cxr.report_model.generate import load_writer, make_dataset, write_findings
from d2rnet.errors import DatasetError
from d2rnet.files.hashes import sha256_file
from d2rnet.findings.classes import CATEGORY_IDS, CATEGORY_NAMES
from d2rnet.reading.content import SYNTHETIC, Box, Sentence, View
from d2rnet.reading.cxr_settings import ReadingSettings, read_reading_settings
from d2rnet.reading.model_folder import RADIOGRAPHS, find_parts
from d2rnet.reading.own_boxes import OwnBox, check_classes, parse_box, view_of, with_own_boxes
from d2rnet.reading.pictures import Picture, as_files
from d2rnet.reading.result import Reading, printable, readable, stem_of
from d2rnet.reading.told import NOTHING, Told
from d2rnet.report.annotation_file import Entry
from d2rnet.report.model_files import CONFIG, VOCABULARY, WEIGHTS, LoadedModel
from d2rnet.runs.cards import is_of_demo_cohort
from d2rnet.runs.device import resolve_device
from d2rnet.runs.provenance import code_version, device_name

log = logging.getLogger(__name__)
SPLIT = "test"  # of the entry that stands for an image; nothing is scored


@dataclass(frozen=True)
class Models:
    """A detector and a report model, ready to read.

    Attributes:
        detector: the EMA teacher in evaluation mode; None: a person's boxes alone are used.
        cfg: its detectron2 configuration.
        report: report model with vocabulary and settings.
        settings: what else decides a reading.
        device: where both models are.
        origin: what each reading records of them.
        warnings: what holds for each of their readings.
    """

    detector: nn.Module | None = field(repr=False)
    cfg: CfgNode | None = field(repr=False)
    report: LoadedModel = field(repr=False)
    settings: ReadingSettings
    device: torch.device
    origin: dict[str, Any]
    warnings: tuple[str, ...]

    def read(
        self,
        path: Picture,
        *,
        name: str = "",
        strict: bool = False,
        boxes: Sequence[OwnBox | str] = (),
        told: Told = NOTHING,
    ) -> Reading:
        """Read one radiograph.

        Args:
            path: DICOM, PNG or JPG file of any name; or an array or PIL image (:func:`d2rnet.reading.pictures.as_files`).
            name: of the reading; the file's name without its suffix if empty.
            strict: refuse a file that is doubtful as a frontal chest radiograph, in place of a warning.
            boxes: those of a person, beside the detector's: :class:`d2rnet.OwnBox`, or texts as on the command line,
                ``"x,y,width,height=class"``. Of detected boxes of the same class that overlap them they take the place.
            told: why it was taken, and the study before; for a report model that takes them.

        Raises:
            DatasetError: the file is not a radiograph that can be read, or doubtful while ``strict``; a box lies outside.
            ConfigError: a box has no class, and no detector is run.
        """
        return self.read_study([path], name=name, strict=strict, boxes=boxes, told=told)

    def read_study(
        self,
        paths: Sequence[Picture],
        *,
        name: str = "",
        strict: bool = False,
        boxes: Sequence[OwnBox | str] = (),
        told: Told = NOTHING,
    ) -> Reading:
        """Read the views of one study: boxes in each, findings of all together.

        Args:
            paths: DICOM, PNG or JPG files, arrays or PIL images.
            name: of the reading; the first file's name without its suffix if empty.
            strict: refuse files that are doubtful as frontal chest radiographs, in place of a warning.
            boxes: as :meth:`read`; an OwnBox names its image.
            told: as :meth:`read`.

        Raises:
            DatasetError: a file is not a radiograph that can be read, or doubtful while ``strict``, or there is none; a box
                lies outside its image.
            ConfigError: a box has no class, and no detector is run.
        """
        if not len(paths):
            raise DatasetError("read: got a study without any image; expected one or more.")
        own = [parse_box(box) if isinstance(box, str) else box for box in boxes]
        if self.detector is None:
            check_classes(own)
        with as_files(paths, name) as files:
            return self._read(files, name, own, told, strict=strict)

    def _read(self, files: Sequence[Path], name: str, own: Sequence[OwnBox], told: Told, *, strict: bool) -> Reading:
        start = time.perf_counter()
        sides_px = [self.settings.max_side_px, self.report.settings.model.input_size_px, None]
        views = []
        decoded: dict[tuple[Path, int | None], Radiograph] = {}
        warnings = list(self.warnings)
        if self.settings.synthetic and not all(map(is_of_demo_cohort, files)):
            warnings.append(SYNTHETIC.format(image="radiograph"))
        for file in files:
            if (printed := printable(file)) != str(file):
                raise DatasetError(f"{printed}: got a file name that is not UTF-8; expected a UTF-8 name. Rename the file.")
            header, radiographs = read_radiograph_at(file, sides_px)
            doubts = self._doubts(file, header, radiographs[-1])
            if doubts and strict:
                raise DatasetError(f"{file}: {'; '.join(doubts)}. Leave it out, or read it without --strict.")
            decoded |= {(file, side): radiograph for side, radiograph in zip(sides_px, radiographs, strict=True)}
            views.append(View(file, header.view, decoded[file, None].pixels))
            warnings += [f"{file.name}: {doubt}" for doubt in [*doubts, *self._unlike(radiographs[0])]]
            if header.exif_orientation != 1:
                warnings.append(f"{file.name}: carries EXIF orientation {header.exif_orientation}; pixels are taken as stored")
        root = Path(os.path.commonpath([file.parent for file in files]))
        entry, is_own, notes = self._entry(views, [decoded[file, self.settings.max_side_px] for file in files], root, own)
        entry |= told.keys()
        warnings += [*notes, *told.unread(self.report.settings.model)]
        ends: Counter[str] = Counter()
        generation = self.settings.generation.replaced(batch_size=1)
        dataset = make_dataset(self.report, [entry], root, lambda path, max_side_px=None: decoded[path, max_side_px])
        (written,) = write_findings(self.report, [entry], dataset, generation, self.device, ends)
        if ends["cut"]:
            warnings.append(f"the findings were cut at {generation.max_tokens} tokens")
        views_of_boxes = entry.get("box_image", [0] * len(entry["boxes"]))
        boxes = zip(views_of_boxes, entry["labels"], entry["scores"], map(tuple, entry["boxes"]), is_own, strict=True)
        sentences = (
            Sentence(readable(sentence["text"]), tuple(sentence["boxes"]), sentence["attended"], tuple(sentence["linked"]))
            for sentence in written["sentences"]
        )
        return Reading(
            name=name or stem_of(files[0]),
            images=tuple(views),
            boxes=tuple(Box(*box) for box in boxes),
            sentences=tuple(sentences),
            hypothesis=written["hypothesis"],
            log_prob=written["log_prob"],
            warnings=tuple(warnings),
            origin={**self.origin, **told.record()},
            seconds=round(time.perf_counter() - start, 3),
            shown_score=self.settings.shown_score,
        )

    def _doubts(self, path: Path, header: RadiographHeader, radiograph: Radiograph) -> list[str]:
        """Return why a file is doubtful as a frontal chest radiograph."""
        pixels = radiograph.pixels
        looked_at = replace(look_at(path, header), one_grey_level=bool((pixels == pixels[0, 0]).all()))
        doubts = find_doubts(looked_at, views=self.settings.views, max_side_px=self.settings.max_side_px)
        return [doubt.text for doubt in doubts]

    def _unlike(self, radiograph: Radiograph) -> list[str]:
        """Return how grey levels differ from those of the training images: a sign, and no reason to refuse a file."""
        levels = self.settings.grey_levels
        found = levels.unlike(radiograph.pixels) if levels else []
        return [f"grey levels unlike the images this model was trained on: {'; '.join(found)}"] if found else []

    def _entry(
        self, views: Sequence[View], radiographs: Sequence[Radiograph], root: Path, own: Sequence[OwnBox]
    ) -> tuple[Entry, list[bool], list[str]]:
        """Return the entry that build_annotation would make, without a report; which boxes are a person's; their warnings."""
        records: list[dict[str, Any]] = [
            {
                "source_id": stem_of(view.path),
                "source_path": view.path.relative_to(root).as_posix(),
                "source_height": view.height,
                "source_width": view.width,
                "view": view.view,
            }
            for view in views
        ]
        table = ImageTable(
            records,
            np.arange(1, len(views) + 1, dtype=np.int64),
            np.array([item.pixels.shape for item in radiographs], dtype=np.float64),
            np.array([item.source_hw for item in radiographs], dtype=np.float64),
        )
        cfg = self.cfg
        inputs = [network_input(item.pixels, number, cfg) for number, item in enumerate(radiographs, start=1) if cfg]
        confidence = ConfidenceFilter.of_classes(self.settings.thresholds)
        confident = confident_boxes(self._detected(inputs), table, confidence, source=views[0].path)
        detected, _ = keep_boxes(
            confident, table, np.ones(len(views), dtype=bool), max_boxes=self.settings.max_boxes, box_views=self._box_views()
        )
        drawn, notes = self._drawn(own, views, inputs)
        notes += self._without_boxes(views)
        boxes, is_own = with_own_boxes(detected, drawn, nms_iou=self.settings.prediction.nms_iou)
        report = {"study_id": stem_of(views[0].path), "subject_id": "", "split": SPLIT, "report": ""}
        rows = list(range(len(views)))
        writer = EntryWriter(table, boxes, [(report, rows)], entry="image" if len(views) == 1 else "study", context=("views",))
        return writer.make(report, rows), is_own, notes

    def _detected(self, inputs: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """Return the COCO results of images, taken one at a time: in a batch, those of different sizes would be padded."""
        if self.detector is None or self.cfg is None:
            return []
        settings = self.settings.prediction
        return [result for item in inputs for result in detect_batch(self.detector, self.cfg, [item], settings)[0]]

    def _box_views(self) -> tuple[str, ...]:
        """Return the views that get boxes: who hands over an image without a view means one that does."""
        return (*self.settings.box_views, UNKNOWN) if self.settings.box_views else ()

    def _without_boxes(self, views: Sequence[View]) -> list[str]:
        """Return a warning for each image whose view gets no boxes."""
        wanted = ", ".join(self.settings.box_views)
        return [
            f"{view.path.name}: view {view.view}: detected boxes are left out, as in training (boxes on {wanted} alone)"
            for view in views
            if self.detector is not None and not shows_view(view.view, self._box_views())
        ]

    def _drawn(
        self, own: Sequence[OwnBox], views: Sequence[View], inputs: Sequence[dict[str, Any]]
    ) -> tuple[PseudoBoxes, list[str]]:
        """Return a person's boxes, cut at the edges of their images, and warnings of those that the detector gave a class.

        Raises:
            DatasetError: a box lies outside its image, or is of none.
        """
        corners = np.array([box.inside(view_of(box, views)) for box in own], dtype=np.float64).reshape(-1, 4)
        labels = [box.label for box in own]
        notes = []
        for number, box in enumerate(own):
            if box.label or self.detector is None:
                continue
            item, view = inputs[box.image], views[box.image]
            scale = np.array([item["width"] / view.width, item["height"] / view.height] * 2)
            [(category, sure)] = classify_boxes(
                self.detector, item, corners[number : number + 1] * scale, self.settings.prediction
            )
            labels[number] = CATEGORY_NAMES[category - 1]
            where = ",".join(f"{value:g}" for value in box.xywh)
            notes.append(f"your box {where} has no class; the detector takes it for {labels[number]} ({sure:.2f})")
        rows = np.array([box.image for box in own], dtype=np.int64)
        ids = np.array([CATEGORY_IDS[label] for label in labels], dtype=np.int64)
        return PseudoBoxes(rows, ids, np.array([box.score for box in own], dtype=np.float64), corners), notes


def load_models(
    detector: str | Path,
    report_model: str | Path | None = None,
    *,
    device: str = "auto",
    score_threshold: float | None = None,
    run_detector: bool = True,
) -> Models:
    """Load a detector and a report model.

    Args:
        detector: folder of train-detector; without ``report_model``, a folder of 'd2rnet export hub', which holds both.
        report_model: folder of train-report-model, with ``reading.json``.
        device: auto, cpu, cuda or cuda:N.
        score_threshold: least score of a box of any class, 0 to 1; None: the thresholds of the run.
        run_detector: False: the detector's folder need not exist, and readings have the boxes that are given to them alone.

    Raises:
        FileNotFoundError: a folder, or a file in it, is missing.
        CheckpointError: a folder's files do not belong together or are of another version.
        ConfigError: no such device, or a setting is wrong.
    """
    detector, report_model = find_parts(detector, report_model, RADIOGRAPHS, needs_first=run_detector)
    start = time.perf_counter()
    target = resolve_device(device)
    settings = read_reading_settings(report_model)
    if score_threshold is not None:
        settings = settings.with_score_threshold(score_threshold)
    report = load_writer(report_model, target, settings.generation)
    hashes = {"report_model": {name: sha256_file(report_model / name) for name in (WEIGHTS, VOCABULARY, CONFIG)}}
    network: nn.Module | None = None
    cfg: CfgNode | None = None
    warnings = []
    if run_detector:
        network, cfg = load_detector(detector, TEACHER_NAME, device, settings.prediction)
        hashes = {"detector": {name: sha256_file(detector / name) for name in (TEACHER_NAME, CONFIG_NAME)}, **hashes}
        if settings.detector_sha256 != hashes["detector"][TEACHER_NAME]:
            warnings.append("the report model was trained on boxes of another detector")
            log.warning("%s and %s: %s", detector, report_model, warnings[0])
    used = settings.model_dump(mode="json", exclude={"grey_levels"})
    origin = {"models": hashes, "settings": used, "code": code_version(), "device": device_name(target)}
    log.info("models loaded in %.1f s on %s", time.perf_counter() - start, target)
    return Models(network, cfg, report, settings, target, origin, tuple(warnings))
