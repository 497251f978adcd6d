"""generate_ct_reports: from a model folder and features of volumes to a shard of test.jsonl, and the shards joined.

Reads: ct_annotation.json, features of extract-ct-features, model folder. Writes: a shard of test.jsonl (report/generation.py)
whose sentences name structures (grounding.py), and its run record.
"""

import logging
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from d2rnet.ct.annotation.read import load_ct_annotation
from d2rnet.ct.report_model.dataset import CtBatch, CtReportDataset, FeatureSource, StoredFeatures
from d2rnet.ct.report_model.features import INDEX, FeatureFacts, load_facts
from d2rnet.ct.report_model.front_end import CT_REPORT, features_of
from d2rnet.ct.report_model.grounding import make_grounding
from d2rnet.ct.report_model.settings import CtGenerationSettings
from d2rnet.ct.structures.table import load_table
from d2rnet.errors import ConfigError, DatasetError
from d2rnet.files.documents import write_jsonl
from d2rnet.report.annotation_file import Entry
from d2rnet.report.generation import Grounding, join_reports, load_for_generation, shard_bounds, write_reports
from d2rnet.report.model_files import CONFIG, VOCABULARY, WEIGHTS, LoadedModel
from d2rnet.runs.device import resolve_device
from d2rnet.runs.progress import track
from d2rnet.runs.provenance import write_run_record
from d2rnet.runs.settings import LoaderRuntime
from d2rnet.runs.shards import record_path, remove_record

log = logging.getLogger(__name__)

COMMAND = "generate-ct-reports"


def generate_ct_reports_shard(
    *,
    annotation: Path,
    features: Path,
    model: Path,
    shard: int,
    shards: int,
    output: Path,
    device: str,
    settings: CtGenerationSettings,
    table: str = "ten",
    runtime: LoaderRuntime = LoaderRuntime(),
) -> None:
    """Write the reports of one shard of a split, by beam search or sampling.

    Args:
        annotation: ct_annotation.json.
        features: folder of extract-ct-features.
        model: folder of train-ct-report-model.
        shard: which shard, 1..shards.
        shards: number of shards.
        output: JSON lines file to write, empty for a shard without a batch; ``<output stem>.run.json`` is written beside it.
        device: auto, cpu, cuda or cuda:N.
        settings: how reports are written.
        table: table of structures that sentences are dealt out to (``ct.structures.table``).
        runtime: loader processes.

    Raises:
        DatasetError: the split is empty, or features are missing, damaged or of another extraction than the model's.
        ConfigError: no such shard, device or table, or a table of other structures than stage 1 was trained on.
        CheckpointError: the model folder's files do not belong together.
    """
    torch_device = resolve_device(device)
    if not 1 <= shard <= shards:
        raise ConfigError(f"--shard {shard} --shards {shards}: expected a shard from 1 to {shards}.")
    loaded = load_for_generation(model, torch_device, settings, CT_REPORT)
    facts = _facts_for(loaded, model, features)
    ground: Grounding = make_grounding(load_table(table), facts.structures, count=loaded.settings.model.patches_per_structure)
    entries = load_ct_annotation(annotation)[settings.split]
    if not entries:
        raise DatasetError(f"{annotation}: split '{settings.split}' is empty; expected entries to write reports for.")
    start, end = shard_bounds(len(entries), batch_size=settings.batch_size, shard=shard, shards=shards)
    mine = entries[start:end]
    dataset = make_dataset(loaded, mine, StoredFeatures(mine, features, facts))
    ends: Counter[str] = Counter()
    ground = _counting(ends, ground)
    workers = runtime.loader_workers
    records = write_reports(loaded, mine, dataset, settings, torch_device, ends, ground=ground, loader_workers=workers)
    remove_record(output)
    count = write_jsonl(output, track(records, total=len(mine), what=f"write {settings.split} reports", unit="report"))
    write_run_record(
        record_path(output),
        command=f"{COMMAND}-shard",
        settings=settings,
        inputs={
            "annotation": annotation,
            "features": features / INDEX,
            **{name: model / name for name in (WEIGHTS, VOCABULARY, CONFIG)},
        },
        counts={"entries": len(entries), "reports": count, **_counts(ends), "shard": shard, "shards": shards},
        seeds={"sampling": settings.seed} if settings.method == "sample" else {},
    )
    log.info("%d of %d %s reports, %d cut at max_tokens: %s", count, len(entries), settings.split, ends["cut"], output)


def _counting(ends: Counter[str], ground: Grounding) -> Grounding:
    """Return a grounding that also counts the visual tokens of what it grounds."""

    def counted(loaded: LoadedModel, batch: CtBatch, *args: Any, **kwargs: Any) -> list[list[dict[str, Any]]]:
        ends["visual_tokens"] += int(batch.mask.sum())
        return ground(loaded, batch, *args, **kwargs)

    return counted


def _counts(ends: Counter[str]) -> dict[str, int]:
    return {"cut_at_max_tokens": ends["cut"], "visual_tokens": ends["visual_tokens"]}


def _facts_for(loaded: LoadedModel, model: Path, features: Path) -> FeatureFacts:
    """Return what is said of features, if they are those that a model was trained on.

    Raises:
        DatasetError: they are others.
    """
    facts = load_facts(features)
    own = features_of(loaded)
    if facts != own:
        raise DatasetError(
            f"{features / INDEX}: features of extraction {facts.key}; the model of {model} was trained on those of {own.key}, "
            "of other weights or settings. Give its features, or train it again."
        )
    return facts


def make_dataset(loaded: LoadedModel, entries: Sequence[Entry], features: FeatureSource) -> CtReportDataset:
    """Make the data set of entries as a model looks at them.

    Args:
        loaded: a report model of chest CT.
        entries: entries of ct_annotation.json.
        features: of their volumes, in the same order.
    """
    return CtReportDataset(
        entries,
        features,
        facts=features_of(loaded),
        settings=loaded.settings.model,
        vocabulary=loaded.tokens,
        max_tokens=loaded.settings.training.max_report_tokens,
    )


def generate_ct_reports(*, annotation: Path, shards: list[Path], output: Path, settings: CtGenerationSettings) -> None:
    """Join the shards of generate-ct-reports-shard (see :func:`d2rnet.report.generation.join_reports`)."""
    join_reports(
        annotation=annotation,
        shards=shards,
        output=output,
        settings=settings,
        command=COMMAND,
        read=load_ct_annotation,
    )
