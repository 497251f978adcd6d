"""generate_reports: from a model folder, radiographs and boxes to a shard of test.jsonl.

Reads: annotation.json, radiographs, model folder. Writes: a shard of test.jsonl (report/generation.py) and its run record.
"""

import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from d2rnet.cxr.boxes.evidence import linked_boxes
from d2rnet.cxr.images.reader import Reader, read_radiograph
from d2rnet.cxr.report_model.context import EntryContexts, check_context
from d2rnet.cxr.report_model.dataset import ReportDataset, crop_arguments, image_sources
from d2rnet.cxr.report_model.front_end import D2RNET, categories_of
from d2rnet.cxr.report_model.image_cache import DirectImages
from d2rnet.cxr.report_model.model import D2RNet
from d2rnet.cxr.report_model.settings import D2RNetGenerationSettings
from d2rnet.cxr.report_model.unsaid import UnsaidFindings
from d2rnet.errors import ConfigError, DatasetError
from d2rnet.files.documents import write_jsonl
from d2rnet.report.annotation_file import Entry, load_annotation
from d2rnet.report.generation import Written, load_for_generation, shard_bounds, write_reports
from d2rnet.report.interface import Encoded
from d2rnet.report.model_files import CONFIG, VOCABULARY, WEIGHTS, LoadedModel
from d2rnet.report.region_grounding import RegionGrounding
from d2rnet.runs.device import resolve_device
from d2rnet.runs.progress import track
from d2rnet.runs.provenance import write_run_record
from d2rnet.runs.settings import LoaderRuntime
from d2rnet.runs.shards import record_path, remove_record

log = logging.getLogger(__name__)


def generate_reports(
    *,
    annotation: Path,
    image_root: Path,
    model: Path,
    shard: int,
    shards: int,
    output: Path,
    device: str,
    settings: D2RNetGenerationSettings,
    runtime: LoaderRuntime = LoaderRuntime(),
) -> None:
    """Write the reports of one shard of a split, by beam search or sampling.

    Args:
        annotation: annotation.json.
        image_root: folder that ``image_path`` is relative to.
        model: folder of train_report_model.
        shard: which shard, 1..shards.
        shards: number of shards.
        output: JSON lines file to write, empty for a shard without a batch; ``<output stem>.run.json`` is written beside it.
        device: auto, cpu, cuda or cuda:N.
        settings: how reports are written.
        runtime: loader processes.

    Raises:
        DatasetError: the split is empty, or a radiograph cannot be read.
        ConfigError: no such shard or device.
        CheckpointError: the model folder's files do not belong together.
    """
    torch_device = resolve_device(device)
    if not 1 <= shard <= shards:
        raise ConfigError(f"--shard {shard} --shards {shards}: expected a shard from 1 to {shards}.")
    loaded = load_writer(model, torch_device, settings)
    entries = load_annotation(annotation)[settings.split]
    if not entries:
        raise DatasetError(f"{annotation}: split '{settings.split}' is empty; expected entries to write reports for.")
    check_context(entries, loaded.settings.model, source=annotation)
    start, end = shard_bounds(len(entries), batch_size=settings.batch_size, shard=shard, shards=shards)
    mine = entries[start:end]
    dataset = make_dataset(loaded, mine, image_root)
    ends: Counter[str] = Counter()
    records = write_findings(loaded, mine, dataset, settings, torch_device, ends, loader_workers=runtime.loader_workers)
    remove_record(output)
    count = write_jsonl(output, track(records, total=len(mine), what=f"write {settings.split} reports", unit="report"))
    write_run_record(
        record_path(output),
        command="generate-reports-shard",
        settings=settings,
        inputs={"annotation": annotation, **{name: model / name for name in (WEIGHTS, VOCABULARY, CONFIG)}},
        counts={
            "entries": len(entries),
            "reports": count,
            "cut_at_max_tokens": ends["cut"],
            "shard": shard,
            "shards": shards,
        },
        seeds={"sampling": settings.seed} if settings.method == "sample" else {},
    )
    log.info("%d of %d %s reports, %d cut at max_tokens: %s", count, len(entries), settings.split, ends["cut"], output)


def write_findings(
    loaded: LoadedModel,
    entries: Sequence[Entry],
    dataset: ReportDataset,
    settings: D2RNetGenerationSettings,
    device: torch.device,
    ends: Counter[str],
    *,
    loader_workers: int = 0,
) -> Iterator[dict[str, Any]]:
    """Write the reports of entries, each sentence with its boxes; see :func:`d2rnet.report.generation.write_reports`."""
    ground = BoxGrounding(RegionGrounding(settings.grounding_share, settings.grounding_contrast))
    judge = UnsaidFindings(settings.unsaid_weight)
    return write_reports(
        loaded, entries, dataset, settings, device, ends, ground=ground, judge=judge, loader_workers=loader_workers
    )


def load_writer(folder: Path, device: torch.device, settings: D2RNetGenerationSettings) -> LoadedModel:
    """Load a D2R-Net that writes as the settings ask for.

    Args:
        folder: of train-report-model.
        device: where to write.
        settings: how.

    Raises:
        CheckpointError: the model folder's files do not belong together.
    """
    loaded = load_for_generation(folder, device, settings, D2RNET)
    found = cast(D2RNet, loaded.model).findings
    if found is not None:
        found.threshold = settings.finding_threshold
    return loaded


@dataclass(frozen=True)
class BoxGrounding:
    """Says which lesion boxes a sentence looks at, and which are of what it names.

    Attributes:
        attended: says what a sentence looks at.
    """

    attended: RegionGrounding

    def __call__(
        self, loaded: LoadedModel, batch: Any, encoded: Encoded, token_ids: Tensor, written: Sequence[Written]
    ) -> list[list[dict[str, Any]]]:
        """Return ``text``, ``boxes``, ``attended`` and ``linked`` of each sentence of each report."""
        found = self.attended(loaded, batch, encoded, token_ids, written)
        return [
            [{**sentence, "linked": linked_boxes(sentence, report.entry)} for sentence in sentences]
            for report, sentences in zip(written, found, strict=True)
        ]


def make_dataset(
    loaded: LoadedModel, entries: Sequence[Entry], image_root: Path, read: Reader = read_radiograph
) -> ReportDataset:
    """Make the data set of entries as a model looks at them; images are decoded when they are asked for.

    Args:
        loaded: a D2R-Net.
        entries: entries of annotation.json.
        image_root: folder that ``image_path`` is relative to.
        read: what decodes a file.

    Raises:
        DatasetError: a box has a class that the model does not know.
    """
    size_px = loaded.settings.model.input_size_px
    return ReportDataset(
        entries,
        DirectImages(image_sources(entries, image_root), size_px=size_px, read=read),
        vocabulary=loaded.vocabulary,
        categories=categories_of(loaded),
        size_px=size_px,
        max_tokens=loaded.settings.training.max_report_tokens,
        context=EntryContexts(
            entries, loaded.settings.model, protocol=loaded.vocabulary.protocol, categories=categories_of(loaded)
        ),
        **crop_arguments(entries, image_root, loaded.settings.model, read=read),
    )
