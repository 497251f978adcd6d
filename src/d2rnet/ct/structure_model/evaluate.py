"""evaluate_structures: what stage 1 has learnt, on the test split.

Reads: ct_annotation.json, converted volumes, model folder; masks where there are some (for evaluation only).
Writes: metrics.json, metrics.md, per_volume.jsonl (place of each volume's own text), structures.svg and .png, run.json. Every
number says n and what chance would give.

* Retrieval, structure by structure: a volume's own text among the distinct texts of the split, and the other way round, where
  any volume with that text counts. Texts as near as the right one count as in random order. Volumes whose report does not
  mention a structure take no part in it, whatever the model was trained to take them for: all models are asked for the same
  texts. Beside it stands chance, and what the commonest texts would reach without a look at the volume: texts are far from
  equally frequent.
* Zero-shot AUROC of the 18 abnormalities: how far an observation points from the training texts without a finding to those
  with it. No label of an image is used; the labels that it is compared with are those of the annotation.
* False negatives: texts that the contrast pushed away in a batch though they were true (false_negatives.py).
* Effective rank: how many dimensions the embeddings of a structure, and its distinct texts, spread over. A collapse of either
  is named.
* Attention: share of it inside the true structure, over the structure's share of what may be looked at.

Shapes: N volumes, S structures, P patches, E width of the space.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from d2rnet.ct.annotation.read import load_ct_annotation
from d2rnet.ct.structure_model.attention_scores import attention_scores
from d2rnet.ct.structure_model.dataset import StructureEntries
from d2rnet.ct.structure_model.diagnostics import Floats, spread
from d2rnet.ct.structure_model.false_negatives import false_negatives
from d2rnet.ct.structure_model.figure import draw_structures
from d2rnet.ct.structure_model.masks import find_masks
from d2rnet.ct.structure_model.model import LoadedStructures, load_structure_model, scaled
from d2rnet.ct.structure_model.retrieval import Retrieved, retrieval_scores, retrieve
from d2rnet.ct.structure_model.score_lines import score_lines
from d2rnet.ct.structure_model.settings import EvaluateStructuresSettings
from d2rnet.ct.structure_model.text_tower import TextTokens, TextTower, embed_known, load_text_tower, text_tokens
from d2rnet.ct.structure_model.trainer import check_shapes
from d2rnet.ct.structures.table import StructureTable, load_table
from d2rnet.errors import DatasetError
from d2rnet.evaluation.auroc import auroc
from d2rnet.evaluation.resampling import logit_interval
from d2rnet.evaluation.systems import study_counts
from d2rnet.files.atomic import write_text
from d2rnet.files.documents import read_jsonl, write_json, write_jsonl
from d2rnet.findings.ct_classes import CT_ABNORMALITIES
from d2rnet.report.annotation_file import Entry
from d2rnet.runs.device import resolve_device
from d2rnet.runs.progress import track
from d2rnet.runs.provenance import write_run_record
from d2rnet.runs.settings import LoaderRuntime
from d2rnet.training.task import make_loader

log = logging.getLogger(__name__)


def evaluate_structures(
    *,
    annotation: Path,
    volumes: Path,
    model: Path,
    output: Path,
    device: str,
    settings: EvaluateStructuresSettings,
    masks: Sequence[Path] = (),
    runtime: LoaderRuntime = LoaderRuntime(),
) -> None:
    """Score stage 1.

    Args:
        annotation: ct_annotation.json.
        volumes: folder of convert-ct.
        model: folder of train-structures.
        output: folder to write to.
        device: auto, cpu, cuda or cuda:N.
        settings: table of structures, resamples.
        masks: folder of label volumes, one at the most, in place of that of the settings.
        runtime: loader processes.

    Raises:
        DatasetError: the test split is empty, of another grid or table, or a mask cannot be read.
        CheckpointError: files of the model folder do not belong together.
        ConfigError: no such device.
    """
    target = resolve_device(device)
    own = settings.structure_model.evaluation
    loaded = load_structure_model(model, target)
    tower = load_text_tower(model, loaded.settings.text, loaded.vocabulary).to(target)
    tokens = text_tokens(loaded.settings.text, loaded.vocabulary)
    table = load_table(settings.structures.table)
    content = load_ct_annotation(annotation)
    entries = content["test"]
    if not entries:
        raise DatasetError(f"{annotation}: no volume in split 'test'; expected at least one.")
    check_shapes(entries, loaded.conversion, source=annotation)
    observed = _observe(loaded, tower, tokens, table, entries, volumes, runtime, target)
    patients = [entry["subject_id"] for entry in entries]
    counts = study_counts(patients, samples=own.bootstrap_samples, seed=own.bootstrap_seed)
    retrieved = [retrieve(*observed.of_structure(place)) for place in range(len(loaded.structures))]
    rows = _rows(loaded, observed, retrieved, counts, false_negatives(content["train"], table, loaded.settings))
    label_volumes = (masks[0], None) if masks else own.label_volumes()
    compared = _add_attention(rows, observed, loaded, label_volumes, table, _lines_of(entries, volumes), counts)
    zero_shot = _zero_shot(observed, _directions(tower, tokens, table, content["train"], target), entries, counts)
    metrics = _metrics(entries, rows, zero_shot, observed) | {"masks": compared}
    write_json(output / "metrics.json", metrics)
    write_text(output / "metrics.md", "\n".join(score_lines(metrics)) + "\n")
    write_jsonl(output / "per_volume.jsonl", _volume_lines(entries, loaded.structures, retrieved))
    draw_structures(output / "structures", metrics)
    write_run_record(
        output / "run.json",
        command="evaluate-structures",
        settings=settings,
        inputs={"annotation": annotation, "weights": model / "model.safetensors"},
        counts={"volumes": len(entries), "patients": len(set(patients))},
        seeds={"bootstrap": own.bootstrap_seed},
    )
    for line in score_lines(metrics):
        log.info("%s", line)


def _rows(
    loaded: LoadedStructures,
    observed: "_Observed",
    retrieved: Sequence[Retrieved],
    counts: NDArray[np.float32],
    pushed: Mapping[str, dict[str, Any]],
) -> dict[str, dict[str, Any]]:
    """Return the scores of each structure that need no mask."""
    return {
        name: retrieval_scores(one, counts) | spread(observed.images[:, place], one.texts) | pushed[name]
        for place, (name, one) in enumerate(zip(loaded.structures, retrieved, strict=True))
    }


def _metrics(
    entries: Sequence[Entry], rows: dict[str, Any], zero_shot: dict[str, dict[str, Any]], observed: "_Observed"
) -> dict[str, Any]:
    """Put everything into one object, and name a collapse in the log."""
    collapsed = [name for name, row in rows.items() if row["collapsed"]]
    collapsed_texts = [name for name, row in rows.items() if row["texts_collapsed"]]
    if collapsed:
        log.warning("embeddings have collapsed: %s; volumes are no longer told apart there", ", ".join(collapsed))
    if collapsed_texts:
        log.warning("texts have collapsed: %s; what reports say is no longer told apart there", ", ".join(collapsed_texts))
    return {
        "split": "test",
        "section": "findings",
        "volumes": len(entries),
        "patients": len({entry["subject_id"] for entry in entries}),
        "resamples_of": "patients",
        "structures": rows,
        **_all_similarities(observed),
        "zero_shot_auroc": zero_shot,
        "zero_shot_auroc_macro": _mean([one["auroc"] for one in zero_shot.values()]),
        "labels_from": sorted({str(entry.get("labels_from", "table")) for entry in entries}),
        "collapsed": collapsed,
        "collapsed_texts": collapsed_texts,
    }


class _Observed:
    """Images and texts (N, S, E), ``known, numbers`` (N, S), attention (N, S, P), ``seen`` (N, P), of the test split."""

    def __init__(self, parts: Sequence[tuple[Tensor, ...]]) -> None:
        columns = [torch.cat(column).numpy() for column in zip(*parts, strict=True)]
        self.images: Floats = columns[0].astype(np.float64)
        self.texts: Floats = columns[1].astype(np.float64)
        self.known: NDArray[np.bool_] = columns[2]
        self.numbers: NDArray[np.int64] = columns[3]
        self.attention: NDArray[np.float16] = columns[4]
        self.seen: NDArray[np.bool_] = columns[5]

    def of_structure(self, place: int) -> tuple[Floats, Floats, NDArray[np.bool_], NDArray[np.int64]]:
        """Return images and texts (N, E), known and numbers (N,) of one structure."""
        return self.images[:, place], self.texts[:, place], self.known[:, place], self.numbers[:, place]


@torch.no_grad()
def _observe(
    loaded: LoadedStructures,
    tower: TextTower,
    tokens: TextTokens,
    table: StructureTable,
    entries: Sequence[Entry],
    volumes: Path,
    runtime: LoaderRuntime,
    device: torch.device,
) -> _Observed:
    text = loaded.settings.text.replaced(missing="mask")  # the texts that reports have, also of a model trained with more
    dataset = StructureEntries(entries, volumes, tokens=tokens, table=table, text=text)
    size = loaded.settings.training.batch_size
    places = range(len(entries))
    batches = [list(places[first : first + size]) for first in places[::size]]
    loader = make_loader(dataset, batches, dataset.collate, workers=runtime.loader_workers)
    parts = []
    for batch in track(loader, total=len(batches), what="observe test volumes", unit="batch"):
        on_device = batch.to(device)
        observation = loaded.model.observe(scaled(on_device.values, loaded.conversion.window_hu))
        parts.append(
            (
                loaded.model.embed(observation.tokens).cpu(),
                embed_known(tower, on_device.token_ids, on_device.known).float().cpu(),
                batch.known,
                batch.numbers,
                observation.attention.to(torch.float16).cpu(),
                observation.patch_mask.cpu(),
            )
        )
    return _Observed(parts)


def _volume_lines(
    entries: Sequence[Entry], structures: Sequence[str], retrieved: Sequence[Retrieved]
) -> Iterator[dict[str, Any]]:
    """Yield where each volume's own text of each structure stands, None where its report does not speak of it."""
    ranks, equals = np.zeros((2, len(entries), len(structures)), np.int64)
    for place, one in enumerate(retrieved):
        ranks[one.known, place] = 1 + one.by_image.before
        equals[one.known, place] = one.by_image.equals
    for entry, *rows in zip(entries, ranks.tolist(), equals.tolist(), strict=True):
        first, as_near = ({name: value or None for name, value in zip(structures, row, strict=True)} for row in rows)
        yield {key: entry[key] for key in ("id", "study_id", "subject_id")} | {"ranks": first, "equals": as_near}


def _all_similarities(observed: _Observed) -> dict[str, list[list[float | None]]]:
    """Compare observations and texts of a structure with those of each structure, of the same volume."""
    images, texts, known = observed.images, observed.texts, observed.known
    said = np.broadcast_to(known[:, None], (*known.shape, known.shape[1]))  # (N, S, S), of the columns
    return {
        "similarity_image_to_text": _similarities(images, texts, said),
        "similarity_image_to_image": _similarities(images, images, np.ones_like(said)),
        "similarity_text_to_text": _similarities(texts, texts, said & known[:, :, None]),
    }


def _similarities(rows: Floats, columns: Floats, counted: NDArray[np.bool_]) -> list[list[float | None]]:
    """Return (S, S) means over the volumes that are ``counted`` (N, S, S) of the cosines of (N, S, E) with (N, S, E)."""
    cosines = np.einsum("nse,nte->nst", rows, columns)
    sums, numbers = np.where(counted, cosines, 0.0).sum(axis=0), counted.sum(axis=0)
    return [
        [round(float(total / number), 4) if number else None for total, number in zip(*row, strict=True)]
        for row in zip(sums, numbers, strict=True)
    ]


@torch.no_grad()
def _directions(
    tower: TextTower, tokens: TextTokens, table: StructureTable, entries: Sequence[Entry], device: torch.device
) -> dict[str, dict[int, Floats]]:
    """Return label -> structure -> mean of the distinct training texts with the label minus that of those without, (E,)."""
    found: dict[str, dict[int, Floats]] = {label: {} for label in CT_ABNORMALITIES}
    for place, name in enumerate(table.structures):
        texts = {entry["structures"][name]["text"]: set(entry["structures"][name]["labels"]) for entry in entries}
        texts.pop("", None)
        if not texts:
            continue
        rows = [torch.tensor(tokens.encode(text)) for text in texts]
        token_ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=tokens.pad_id)
        vectors = torch.cat([tower(part.to(device)).cpu() for part in token_ids.split(256)]).numpy().astype(np.float64)
        for label in table.structures[name].labels or CT_ABNORMALITIES:
            there = np.array([label in labels for labels in texts.values()])
            if there.any() and not there.all():
                found[label][place] = vectors[there].mean(axis=0) - vectors[~there].mean(axis=0)
    return found


def _zero_shot(
    observed: _Observed,
    directions: Mapping[str, Mapping[int, Floats]],
    entries: Sequence[Entry],
    counts: NDArray[np.float32],
) -> dict[str, dict[str, Any]]:
    """Return label -> AUROC, its 95 % interval over patients, and how many volumes have it and are labelled."""
    scores: dict[str, dict[str, Any]] = {}
    for number, label in enumerate(CT_ABNORMALITIES):
        labels = [entry["labels"][number] for entry in entries]
        labelled = np.array([value is not None for value in labels])
        truth = np.array([value == 1 for value in labels])
        parts = [observed.images[:, place] @ direction for place, direction in directions[label].items()]
        positive = int(truth.sum())
        rarer = min(positive, int(labelled.sum()) - positive)
        value, drawn = np.nan, np.zeros(0)
        if parts and rarer:
            projected = np.sum(parts, axis=0)[labelled]
            (value,) = auroc(projected, truth[labelled], np.ones((len(projected), 1), np.float32))
            drawn = auroc(projected, truth[labelled], counts[labelled])
        scores[label] = {
            "auroc": float(value) if np.isfinite(value) else None,
            "interval": logit_interval(value, drawn, cases=rarer),
            "positive": positive,
            "labelled": int(labelled.sum()),
        }
    return scores


def _lines_of(entries: Sequence[Entry], volumes: Path) -> list[dict[str, Any]]:
    """Return the lines of convert-ct's volumes.jsonl of entries, in their order."""
    lines = {line["volume_id"]: line for line in read_jsonl(volumes / "volumes.jsonl")}
    return [lines[entry["id"]] for entry in entries]


def _add_attention(
    rows: dict[str, dict[str, Any]],
    observed: _Observed,
    loaded: LoadedStructures,
    label_volumes: tuple[Path | None, Path | None],
    table: StructureTable,
    volumes: Sequence[Mapping[str, Any]],
    counts: NDArray[np.float32],
) -> dict[str, Any] | None:
    """Add to the row of each structure how much of its attention lies inside it; return what was compared, if anything."""
    masks = find_masks(*label_volumes, table, volumes)
    if masks is None:
        return None
    attention = {name: observed.attention[:, place] for place, name in enumerate(loaded.structures)}
    grid = loaded.model.encoder.grid_zyx
    scores, compared = attention_scores(masks, volumes, attention, observed.seen, grid_zyx=grid, counts=counts)
    for name, scored in scores.items():
        rows[name] |= scored
    return compared


def _mean(values: Sequence[float | None]) -> float | None:
    present = [value for value in values if value is not None]
    return float(np.mean(present)) if present else None
