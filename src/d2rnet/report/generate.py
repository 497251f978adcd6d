"""generate_reports and gather_reports: from a model folder to test.jsonl.

Reads: annotation.json, radiographs, model folder. Writes: run records, and one JSON line an entry:
``id, reference, hypothesis, log_prob, sentences[{text, boxes[]}]``; ``boxes`` are places in the entry's ``boxes`` list, most
attended first. A split falls into fixed whole batches and a shard is a run of them, so that the numbers of an entry do not
depend on how many shards there are.
"""

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from d2rnet.data.annotation_file import load_annotation
from d2rnet.device import resolve_device
from d2rnet.errors import ConfigError, DatasetError
from d2rnet.io import read_jsonl, write_jsonl
from d2rnet.progress import track
from d2rnet.provenance import write_run_record
from d2rnet.report.dataset import Batch, Entry, ReportDataset, crop_arguments, image_sources
from d2rnet.report.decoding import SearchOptions
from d2rnet.report.image_cache import DirectImages
from d2rnet.report.model_files import CONFIG, VOCABULARY, WEIGHTS, LoadedModel, load_model
from d2rnet.report.text import clean_report, split_sentences
from d2rnet.report.training_task import make_loader
from d2rnet.report.vocabulary import BOS_ID

log = logging.getLogger(__name__)
LOG_PROB_DIGITS = 5


def generate_reports(
    *,
    annotation: Path,
    image_root: Path,
    model: Path,
    shard: int,
    shards: int,
    output: Path,
    device: str,
    settings: dict[str, Any],
) -> None:
    """Write the reports of one shard of a split by beam search.

    Args:
        annotation: annotation.json.
        image_root: folder that ``image_path`` is relative to.
        model: folder of train_report_model.
        shard: which shard, 1..shards.
        shards: number of shards.
        output: JSON lines file to write, empty for a shard without a batch; ``<output stem>.run.json`` is written beside it.
        device: auto, cpu, cuda or cuda:N.
        settings: section ``report.generation``.

    Raises:
        DatasetError: the split is empty, or a radiograph cannot be read.
        ConfigError: no such shard or device.
        CheckpointError: the model folder's files do not belong together.
    """
    torch_device = resolve_device(device)
    if not 1 <= shard <= shards:
        raise ConfigError(f"--shard {shard} --shards {shards}: expected a shard from 1 to {shards}.")
    loaded = load_model(model, torch_device)
    entries = load_annotation(annotation)[settings["split"]]
    if not entries:
        raise DatasetError(f"{annotation}: split '{settings['split']}' is empty; expected entries to write reports for.")
    start, end = shard_bounds(len(entries), batch_size=settings["batch_size"], shard=shard, shards=shards)
    mine = entries[start:end]
    records = _write_reports(loaded, mine, image_root, settings, torch_device)
    count = write_jsonl(output, track(records, total=len(mine), what=f"write {settings['split']} reports", unit="report"))
    write_run_record(
        output.with_suffix(".run.json"),
        command="generate-reports-shard",
        settings=settings,
        inputs={"annotation": annotation, **{name: model / name for name in (WEIGHTS, VOCABULARY, CONFIG)}},
        counts={"entries": len(entries), "reports": count, "shard": shard, "shards": shards},
    )
    log.info("%d of %d %s reports: %s", count, len(entries), settings["split"], output)


def shard_bounds(count: int, *, batch_size: int, shard: int, shards: int) -> tuple[int, int]:
    """Return first and one past last entry of shard 1..shards: a run of whole batches."""
    batches = -(-count // batch_size)
    first, last = batches * (shard - 1) // shards, batches * shard // shards
    return min(first * batch_size, count), min(last * batch_size, count)


def _write_reports(
    loaded: LoadedModel, entries: Sequence[Entry], image_root: Path, settings: dict[str, Any], device: torch.device
) -> Iterator[dict[str, Any]]:
    size_px = loaded.settings["model"]["input_size_px"]
    dataset = ReportDataset(
        entries,
        DirectImages(image_sources(entries, image_root), size_px=size_px),
        vocabulary=loaded.vocabulary,
        categories=loaded.categories,
        size_px=size_px,
        max_tokens=loaded.settings["training"]["max_report_tokens"],
        **crop_arguments(entries, image_root, loaded.settings["model"]),
    )
    places = range(len(entries))
    batches = [list(places[first : first + settings["batch_size"]]) for first in places[:: settings["batch_size"]]]
    for chosen, batch in zip(batches, make_loader(dataset, batches, workers=settings["workers"]), strict=True):
        yield from _write_batch(loaded, [entries[place] for place in chosen], batch.to(device), settings)


@torch.no_grad()
def _write_batch(
    loaded: LoadedModel, entries: Sequence[Entry], batch: Batch, settings: dict[str, Any]
) -> Iterator[dict[str, Any]]:
    keys = ("beam_size", "max_tokens", "min_tokens", "length_penalty")
    encoded = loaded.model.encode(batch)
    decoded = loaded.model.generate(encoded, SearchOptions(**{key: settings[key] for key in keys}))
    start = torch.full_like(decoded.token_ids[:, :1], BOS_ID)
    attention = loaded.model.lesion_attention(encoded, torch.cat([start, decoded.token_ids], dim=1)).cpu()  # (B, T, K)
    for row, entry in enumerate(entries):
        tokens = loaded.vocabulary.decode(decoded.token_ids[row].tolist())
        yield {
            "id": entry["id"],
            "reference": clean_report(entry["report"], loaded.vocabulary.protocol),
            "hypothesis": " ".join(tokens),
            "log_prob": round(float(decoded.log_probs[row]), LOG_PROB_DIGITS),
            "sentences": ground_sentences(
                tokens,
                attention[row, :, : len(entry["boxes"])],
                least_share=settings["grounding_share"],
                least_contrast=settings["grounding_contrast"],
            ),
        }


def ground_sentences(
    tokens: list[str], attention: Tensor, *, least_share: float, least_contrast: float
) -> list[dict[str, Any]]:
    """Say which boxes each sentence looks at.

    Most of a box's share is the same for all sentences, whatever they say; what tells one from another is the contrast to
    the report's mean (docs/explanation/report-model.md has figures). A report of one sentence has no contrast.

    Args:
        tokens: T tokens of a report.
        attention: (at least T, K) share of cross-attention that each of K lesions gets while a token is written.
        least_share: a box is listed if its mean share over the sentence's tokens is at least this ...
        least_contrast: ... and at least so many times its mean share over the report's tokens.

    Returns:
        ``text`` and ``boxes`` of each sentence; boxes by falling share. The texts joined by spaces are the report.
    """
    sentences = split_sentences(tokens)
    needed = attention[: len(tokens)].mean(dim=0) * least_contrast if len(sentences) > 1 else torch.zeros(())
    needed = needed.clamp(min=least_share).expand(attention.shape[1])  # (K,)
    grounded, start = [], 0
    for sentence in sentences:
        shares = attention[start : start + len(sentence)].mean(dim=0)  # (K,)
        order = torch.argsort(shares, descending=True, stable=True).tolist()
        boxes = [box for box in order if shares[box] >= needed[box]]
        grounded.append({"text": " ".join(sentence), "boxes": boxes})
        start += len(sentence)
    return grounded


def gather_reports(*, annotation: Path, shards: list[Path], output: Path) -> None:
    """Join the shards of generate_reports in the order of annotation.json.

    Args:
        annotation: the file that the reports were written for.
        shards: JSON lines file of every shard.
        output: JSON lines file to write; ``run.json`` is written beside it.

    Raises:
        DatasetError: an entry of the split is missing, is there twice, or is not in one split of annotation.json.
    """
    records: dict[str, dict[str, Any]] = {}
    for path in shards:
        for record in read_jsonl(path):
            if record["id"] in records:
                raise DatasetError(f"{path}: entry {record['id']} is in the shards twice. Generate the shards again.")
            records[record["id"]] = record
    split, order = _split_of(records, annotation)
    missing = [name for name in order if name not in records]
    if missing:
        raise DatasetError(
            f"{annotation}: {len(missing)} of {len(order)} entries of split '{split}' are in none of {len(shards)} shards: "
            f"{', '.join(missing[:10])}. Give every shard of one run, or generate them again."
        )
    write_jsonl(output, (records[name] for name in order))
    write_run_record(
        output.with_name("run.json"),
        command="generate-reports",
        settings={},
        inputs={"annotation": annotation, **{f"shard_{number}": path for number, path in enumerate(shards, start=1)}},
        counts={"split": split, "reports": len(order), "shards": len(shards)},
    )
    log.info("%d %s reports from %d shards: %s", len(order), split, len(shards), output)


def _split_of(records: dict[str, Any], annotation: Path) -> tuple[str, list[str]]:
    """Return the split that generated entries belong to, with all of its ids in order."""
    if not records:
        raise DatasetError(f"{annotation}: the shards hold no report. Generate them again.")
    ids = {split: [entry["id"] for entry in entries] for split, entries in load_annotation(annotation).items()}
    for split, order in ids.items():
        if next(iter(records)) in set(order):
            strangers = sorted(set(records) - set(order))
            if strangers:
                raise DatasetError(
                    f"{annotation}: generated entries {', '.join(strangers[:10])} ({len(strangers)}) are not in split "
                    f"'{split}', where {next(iter(records))} is. Generate every shard from this annotation.json."
                )
            return split, order
    raise DatasetError(
        f"{annotation}: generated entry {next(iter(records))} is in no split. Generate the shards from this annotation.json."
    )
