"""Both stages in memory, and one CT through them: read, convert, observe, select, write.

Each step is the workflow's own: the reader and gate of convert_ct, stage 1 as extract_ct_features uses it, generate_ct_reports
on the entry that build_ct_annotation would have made.
"""

import logging
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from d2rnet.ct.conversion.grid import convert_volume
from d2rnet.ct.report_model.dataset import CtReportDataset
from d2rnet.ct.report_model.extract import Extraction
from d2rnet.ct.report_model.front_end import CT_REPORT, features_of
from d2rnet.ct.report_model.grounding import StructureGrounding, make_grounding
from d2rnet.ct.structure_model.model import volume_tensor
from d2rnet.ct.volumes.reader import read_chest_volume
from d2rnet.errors import CheckpointError, DatasetError
from d2rnet.files.hashes import sha256_file
from d2rnet.files.names import absolute_without_dots
from d2rnet.reading.content import SYNTHETIC
from d2rnet.reading.ct_content import CtSentence
from d2rnet.reading.ct_result import CtReading
from d2rnet.reading.ct_settings import CtReadingSettings, read_ct_reading_settings
from d2rnet.reading.ct_view import view_of
from d2rnet.reading.model_folder import CT, find_parts
from d2rnet.reading.result import printable, readable, stem_of
from d2rnet.report.generation import load_for_generation, write_reports
from d2rnet.report.model_files import CONFIG, VOCABULARY, WEIGHTS, LoadedModel
from d2rnet.runs.cards import is_of_demo_cohort
from d2rnet.runs.device import resolve_device
from d2rnet.runs.provenance import code_version, device_name

log = logging.getLogger(__name__)
SPLIT = "test"  # of the entry that stands for a scan; nothing is scored


@dataclass(frozen=True)
class CtModels:
    """Stage 1 and a report model, ready to read.

    Attributes:
        extraction: stage 1, and what is kept of what it sees.
        report: report model with vocabulary and settings.
        grounding: deals sentences out to structures.
        settings: what else decides a reading.
        origin: what each reading records of them.
    """

    extraction: Extraction = field(repr=False)
    report: LoadedModel = field(repr=False)
    grounding: StructureGrounding = field(repr=False)
    settings: CtReadingSettings
    origin: dict[str, Any]

    def read(self, path: str | Path, *, name: str = "", strict: bool = False) -> CtReading:
        """Read one CT.

        Args:
            path: NIfTI, MetaImage or NRRD file, or the folder of a DICOM series; any orientation.
            name: of the reading; the file's or folder's name if empty.
            strict: refuse a scan of which anything is odd, in place of a warning.

        Raises:
            DatasetError: no CT of a chest that can be read, or an odd one while ``strict``.
        """
        start = time.perf_counter()
        file = absolute_without_dots(path)
        if (printed := printable(file)) != str(file):
            raise DatasetError(f"{printed}: got a file name that is not UTF-8; expected a UTF-8 name. Rename the file.")
        volume = read_chest_volume(file, self.settings.volumes)
        if volume.notes and strict:
            raise DatasetError(f"{file}: {' '.join(volume.notes)} Leave it out, or read it without --strict.")
        converted = convert_volume(volume, self.settings.conversion)
        view = view_of(volume, converted.facts)
        del volume  # up to 4 GiB, and no longer needed
        tensor = volume_tensor(converted.array, self.settings.conversion.window_hu)
        try:
            features, attention = self.extraction.look(tensor, file.name)
        except DatasetError as error:
            raise DatasetError(f"{file}: {error}") from error
        warnings = list(converted.facts["notes"])
        if self.settings.synthetic and not is_of_demo_cohort(file):
            warnings.insert(0, SYNTHETIC.format(image="CT"))
        written = self._write(file, features, warnings)
        sentences = (CtSentence(readable(one["text"]), tuple(one["structures"])) for one in written["sentences"])
        grid = self.extraction.facts.grid_zyx
        return CtReading(
            name=name or stem_of(file),
            file=file.name,
            volume=view,
            source=converted.facts,
            structures=self.extraction.facts.structures,
            attention=attention.numpy().reshape(-1, *grid),  # (S, P) -> (S, gz, gy, gx)
            sentences=tuple(sentences),
            hypothesis=written["hypothesis"],
            log_prob=written["log_prob"],
            warnings=tuple(warnings),
            origin=self.origin,
            seconds=round(time.perf_counter() - start, 3),
        )

    def _write(self, file: Path, features: Any, warnings: list[str]) -> dict[str, Any]:
        """Return the line of test.jsonl that the workflow would have written; what a reader should know joins ``warnings``."""
        entry = {"id": file.name, "study_id": file.name, "subject_id": "", "split": SPLIT, "report": ""}
        generation = self.settings.generation.replaced(batch_size=1)
        dataset = CtReportDataset(
            [entry],
            [features],
            facts=self.extraction.facts,
            settings=self.report.settings.model,
            vocabulary=self.report.tokens,
            max_tokens=self.report.settings.training.max_report_tokens,
        )
        ends: Counter[str] = Counter()
        device = self.extraction.device
        (written,) = write_reports(self.report, [entry], dataset, generation, device, ends, ground=self.grounding)
        if ends["cut"]:
            warnings.append(f"the findings were cut at {generation.max_tokens} tokens")
        return written


def load_ct_models(structures: str | Path, report_model: str | Path | None = None, *, device: str = "auto") -> CtModels:
    """Load stage 1 and a report model.

    Args:
        structures: folder of train-structures; without ``report_model``, a folder of 'd2rnet export hub', which holds both.
        report_model: folder of train-ct-report-model, with ``reading.json``.
        device: auto, cpu, cuda or cuda:N.

    Raises:
        FileNotFoundError: a folder, or a file in it, is missing.
        CheckpointError: a folder's files do not belong together, or the report model was trained on another stage 1.
        ConfigError: no such device, or a setting is wrong.
    """
    structures, report_model = find_parts(structures, report_model, CT)
    start = time.perf_counter()
    target: torch.device = resolve_device(device)
    settings = read_ct_reading_settings(report_model)
    extraction = Extraction.of(structures, Path(), settings.features, target)
    report = load_for_generation(report_model, target, settings.generation, CT_REPORT)
    trained_on = features_of(report)
    if trained_on != extraction.facts:
        raise CheckpointError(
            f"{report_model}: was trained on features {trained_on.key}; {structures} and ct.report.features give "
            f"{extraction.facts.key}. Name the stage 1 of that training with --structures."
        )
    seen = extraction.loaded.conversion
    wanted = settings.conversion
    if (seen.shape_zyx, seen.spacing_mm, seen.window_hu) != (wanted.shape_zyx, wanted.spacing_mm, wanted.window_hu):
        raise CheckpointError(
            f"{report_model}: reading.json has a grid of {wanted.shape_zyx} at {wanted.spacing_mm} mm, {wanted.window_hu} HU; "
            f"stage 1 was trained on {seen.shape_zyx} at {seen.spacing_mm} mm, {seen.window_hu} HU. Write it again with "
            "'d2rnet describe-ct-reading' and the configuration of the run."
        )
    grounding = make_grounding(settings.structure_table(report_model), extraction.facts.structures, count=1)
    hashes = {
        "structures": {name: sha256_file(structures / name) for name in (WEIGHTS, CONFIG)},
        "report_model": {
            name: sha256_file(report_model / name) for name in (WEIGHTS, VOCABULARY, CONFIG, *settings.own_files)
        },
    }
    origin = {
        "models": hashes,
        "settings": settings.to_json(),
        "code": code_version(),
        "device": device_name(target),
    }
    log.info("models loaded in %.1f s on %s", time.perf_counter() - start, target)
    return CtModels(extraction, report, grounding, settings, origin)
