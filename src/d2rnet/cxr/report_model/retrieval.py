"""retrieve_reports: answer each image with the report of the training image that looks most like it.

A model that cannot beat this baseline has learnt to remember, not to write. Images are compared by the cosine of the mean
patch feature of the trained report model, the mean over the images of an entry; no box is used.

Reads: test.jsonl of generate-reports (for its ids), annotation.json, radiographs, model folder. Writes: test.jsonl with ``id,
reference, hypothesis, nearest, cosine`` and run.json. Training entries are streamed, so memory does not grow with them.
"""

import logging
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from d2rnet.cxr.report_model.dataset import image_sources
from d2rnet.cxr.report_model.front_end import D2RNET
from d2rnet.cxr.report_model.image_cache import DirectImages
from d2rnet.cxr.report_model.model import D2RNet
from d2rnet.errors import DatasetError
from d2rnet.evaluation.report_pairs import read_pairs
from d2rnet.evaluation.settings import RetrievalSettings
from d2rnet.files.documents import write_jsonl
from d2rnet.report.annotation_file import Entry, load_annotation
from d2rnet.report.model_files import CONFIG, VOCABULARY, WEIGHTS, LoadedModel, load_model
from d2rnet.report.text.protocols import clean_report
from d2rnet.runs.device import resolve_device
from d2rnet.runs.progress import track
from d2rnet.runs.provenance import write_run_record

log = logging.getLogger(__name__)
BATCH_ENTRIES = 32  # entries per step; changes no metric


def retrieve_reports(
    *,
    generated: Path,
    annotation: Path,
    image_root: Path,
    model: Path,
    output: Path,
    workers: int,
    device: str,
    settings: RetrievalSettings,
) -> None:
    """Write the nearest training report of each generated report's entry.

    Args:
        generated: test.jsonl of generate-reports; names the entries.
        annotation: annotation.json.
        image_root: folder that ``image_path`` is relative to.
        model: folder of train-report-model, for its image features and its text protocol.
        output: JSON lines file to write; run.json is written beside it.
        workers: threads that decode images.
        device: auto, cpu, cuda or cuda:N.
        settings: number of candidates, seed of their draw.

    Raises:
        DatasetError: there is no training report, or a radiograph cannot be read.
        CheckpointError: the model folder's files do not belong together.
    """
    loaded = load_model(model, resolve_device(device), D2RNET)
    splits = load_annotation(annotation)
    pairs = read_pairs(generated, splits)
    by_id = {entry["id"]: entry for entry in splits[pairs.split]}
    asked = [by_id[name] for name in pairs.ids]
    most = settings.retrieval_candidates
    seed = settings.retrieval_seed
    candidates = choose_candidates(splits["train"], protocol=loaded.vocabulary.protocol, most=most, seed=seed)
    queries = torch.cat([features for _, features in _features(loaded, asked, image_root, workers, "features, test images")])
    places, cosines = nearest(queries, _features(loaded, candidates, image_root, workers, "features, training images"))
    records = (
        {
            "id": name,
            "reference": reference,
            "hypothesis": clean_report(candidates[place]["report"], loaded.vocabulary.protocol),
            "nearest": candidates[place]["id"],
            "cosine": round(float(cosine), 5),
        }
        for name, reference, place, cosine in zip(pairs.ids, pairs.references, places, cosines, strict=True)
    )
    write_jsonl(output, records)
    write_run_record(
        output.with_name("run.json"),
        command="retrieve-reports",
        settings=settings,
        inputs={
            "generated": generated,
            "annotation": annotation,
            **{name: model / name for name in (WEIGHTS, VOCABULARY, CONFIG)},
        },
        counts={"reports": len(asked), "candidates": len(candidates), "different_answers": len(set(places.tolist()))},
        seeds={"candidates": seed},
    )
    log.info("nearest of %d training entries for %d entries: %s", len(candidates), len(asked), output)


def choose_candidates(entries: Sequence[Entry], *, protocol: str, most: int, seed: int) -> list[Entry]:
    """Draw training entries whose report is not empty, in their order.

    Raises:
        DatasetError: there is none.
    """
    written = [entry for entry in entries if clean_report(entry["report"], protocol)]
    if not written or most < 1:
        raise DatasetError(
            f"annotation.json: {len(written)} training entries with a report, {most} wanted "
            "(evaluation.retrieval_candidates); expected at least one."
        )
    if len(written) <= most:
        return written
    chosen = np.sort(np.random.default_rng(seed).choice(len(written), size=most, replace=False))
    return [written[place] for place in chosen.tolist()]


@torch.no_grad()
def _features(
    loaded: LoadedModel, entries: Sequence[Entry], image_root: Path, workers: int, what: str
) -> Iterator[tuple[int, Tensor]]:
    """Yield the place of the first entry and the (n, P) unit features of runs of entries."""
    model = cast(D2RNet, loaded.model)
    device = next(model.parameters()).device
    images = DirectImages(image_sources(entries, image_root), size_px=loaded.settings.model.input_size_px)
    ends = np.cumsum([0, *(len(entry["image_path"]) for entry in entries)]).tolist()
    starts = range(0, len(entries), BATCH_ENTRIES)
    with ThreadPoolExecutor(max(1, workers)) as pool:
        for start in track(starts, total=len(entries), what=what, unit="item", step=BATCH_ENTRIES):
            stop = min(start + BATCH_ENTRIES, len(entries))
            pixels = np.stack(list(pool.map(images.__getitem__, range(ends[start], ends[stop]))))
            patches = model.extractor(torch.from_numpy(pixels).to(device))[1]  # (images, patches, P)
            means = patches.float().mean(dim=1).cpu()
            cuts = [end - ends[start] for end in ends[start : stop + 1]]
            of_entries = [means[first:last].mean(dim=0) for first, last in pairwise(cuts)]
            yield start, torch.nn.functional.normalize(torch.stack(of_entries), dim=1)


def nearest(queries: Tensor, candidates: Iterator[tuple[int, Tensor]]) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Find the candidate with the greatest cosine; of equals the first.

    Args:
        queries: (N, P) unit features.
        candidates: place of the first candidate and (n, P) unit features, run by run.

    Returns:
        (N,) places of the nearest candidates and (N,) cosines.
    """
    best = torch.full((len(queries),), -torch.inf)
    places = torch.zeros(len(queries), dtype=torch.int64)
    for start, features in candidates:
        cosines, rows = (queries @ features.T).max(dim=1)
        better = cosines > best
        best = torch.where(better, cosines, best)
        places = torch.where(better, rows + start, places)
    return places.numpy(), best.numpy()
