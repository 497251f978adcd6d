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
from d2rnet.ct.structure_model.dataset import StructureEntries
from d2rnet.ct.structure_model.diagnostics import Floats, attention_inside, spread
from d2rnet.ct.structure_model.false_negatives import false_negatives
from d2rnet.ct.structure_model.figure import draw_structures
from d2rnet.ct.structure_model.masks import patch_shares, read_codes
from d2rnet.ct.structure_model.model import LoadedStructures, load_structure_model, scaled
from d2rnet.ct.structure_model.retrieval import Retrieved, retrieval_scores, retrieve
from d2rnet.ct.structure_model.score_lines import score_lines
from d2rnet.ct.structure_model.settings import EvaluateStructuresSettings
from d2rnet.ct.structure_model.text_tower import TextTower, embed_known, load_text_tower
from d2rnet.ct.structure_model.trainer import check_shapes
from d2rnet.ct.structures.table import StructureTable, load_table
from d2rnet.errors import DatasetError
from d2rnet.evaluation.auroc import auroc
from d2rnet.evaluation.resampling import logit_interval, percentile_interval
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
        masks: folders of true masks, one at the most.
        runtime: loader processes.

    Raises:
        DatasetError: the test split is empty, of another grid or table, or a mask cannot be read.
        CheckpointError: files of the model folder do not belong together.
        ConfigError: no such device.
    """
    target = resolve_device(device)
    bootstrap = settings.structure_model.evaluation
    loaded = load_structure_model(model, target)
    tower = load_text_tower(model, loaded.settings.text, loaded.vocabulary).to(target)
    table = load_table(settings.structures.table)
    content = load_ct_annotation(annotation)
    entries = content["test"]
    if not entries:
        raise DatasetError(f"{annotation}: no volume in split 'test'; expected at least one.")
    check_shapes(entries, loaded.conversion, source=annotation)
    observed = _observe(loaded, tower, table, entries, volumes, runtime, target)
    patients = [entry["subject_id"] for entry in entries]
    counts = study_counts(patients, samples=bootstrap.bootstrap_samples, seed=bootstrap.bootstrap_seed)
    retrieved = [retrieve(*observed.of_structure(place)) for place in range(len(loaded.structures))]
    pushed = false_negatives(content["train"], table, loaded.settings)
    rows = {
        name: retrieval_scores(one, counts) | spread(observed.images[:, place], one.texts) | pushed[name]
        for place, (name, one) in enumerate(zip(loaded.structures, retrieved, strict=True))
    }
    if masks:
        _add_attention(rows, observed, loaded, entries, volumes, masks[0], counts)
    zero_shot = _zero_shot(observed, _directions(tower, loaded, table, content["train"], target), entries, counts)
    metrics = _metrics(entries, rows, zero_shot, observed)
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
        seeds={"bootstrap": bootstrap.bootstrap_seed},
    )
    for line in score_lines(metrics):
        log.info("%s", line)


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
        "similarity_image_to_text": _similarities(observed),
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
    table: StructureTable,
    entries: Sequence[Entry],
    volumes: Path,
    runtime: LoaderRuntime,
    device: torch.device,
) -> _Observed:
    text = loaded.settings.text.replaced(missing="mask")  # the texts that reports have, also of a model trained with more
    dataset = StructureEntries(entries, volumes, vocabulary=loaded.vocabulary, table=table, text=text)
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


def _similarities(observed: _Observed) -> list[list[float | None]]:
    """Return (S, S) mean cosine of observations of a structure (rows) and the same volumes' texts of each structure."""
    structures = observed.known.shape[1]
    cosines = np.einsum("nse,nte->nst", observed.images, observed.texts)
    table: list[list[float | None]] = []
    for row in range(structures):
        table.append([])
        for column in range(structures):
            known = observed.known[:, column]
            table[-1].append(round(float(cosines[known, row, column].mean()), 4) if known.any() else None)
    return table


@torch.no_grad()
def _directions(
    tower: TextTower, loaded: LoadedStructures, table: StructureTable, entries: Sequence[Entry], device: torch.device
) -> dict[str, dict[int, Floats]]:
    """Return label -> structure -> mean of the distinct training texts with the label minus that of those without, (E,)."""
    settings = loaded.settings.text
    vocabulary = loaded.vocabulary
    found: dict[str, dict[int, Floats]] = {label: {} for label in CT_ABNORMALITIES}
    for place, name in enumerate(loaded.structures):
        texts = {entry["structures"][name]["text"]: set(entry["structures"][name]["labels"]) for entry in entries}
        texts.pop("", None)
        if not texts:
            continue
        rows = [torch.tensor(vocabulary.encode(text, max_tokens=settings.max_tokens)) for text in texts]
        token_ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
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


def _add_attention(
    rows: dict[str, dict[str, Any]],
    observed: _Observed,
    loaded: LoadedStructures,
    entries: Sequence[Entry],
    volumes: Path,
    masks: Path,
    counts: NDArray[np.float32],
) -> None:
    """Add to the row of each structure how much of its attention lies inside it."""
    codes = read_codes(masks, loaded.structures)
    lines = {line["volume_id"]: line for line in read_jsonl(volumes / "volumes.jsonl")}
    grid = loaded.model.encoder.grid_zyx
    found: dict[str, dict[int, dict[str, Any]]] = {name: {} for name in codes}
    without = 0
    for place, entry in enumerate(track(entries, total=len(entries), what="compare attention with masks", unit="volume")):
        path = masks / f"{entry['study_id']}.nii.gz"
        shares = patch_shares(path, lines[entry["id"]], codes, grid) if path.is_file() else None
        if shares is None:
            without += 1
            continue
        for name, share in zip(codes, shares, strict=True):
            attention = observed.attention[place, loaded.structures.index(name)].astype(np.float64)
            scores = attention_inside(attention, share.astype(np.float64), observed.seen[place])
            if scores is not None:
                found[name][place] = scores
    if without:
        log.warning(
            "%d of %d volumes have no mask that fits; they take no part in the attention scores", without, len(entries)
        )
    for name, of_volume in found.items():
        if not of_volume:
            continue
        places = np.array(list(of_volume))
        inside = np.array([one["inside"] for one in of_volume.values()])
        expected = np.array([one["expected"] for one in of_volume.values()])
        drawn = (inside @ counts[places]) / np.maximum(expected @ counts[places], 1e-12)
        rows[name] |= {
            "attention_volumes": len(of_volume),
            "attention_inside": float(inside.mean()),
            "attention_expected": float(expected.mean()),
            "attention_ratio": float(inside.mean() / expected.mean()),
            "attention_ratio_interval": percentile_interval(drawn),
            "pointing_hit": float(np.mean([one["hit"] for one in of_volume.values()])),
        }


def _mean(values: Sequence[float | None]) -> float | None:
    present = [value for value in values if value is not None]
    return float(np.mean(present)) if present else None
