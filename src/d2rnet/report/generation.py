"""Writing reports: encoded visual tokens to test.jsonl, in shards, and joined again; of any front end.

Writes one JSON line per entry: ``id, reference, hypothesis, log_prob, sentences[{text, boxes[], attended}]``; ``boxes`` are
places among the entry's regions, most attended first, ``attended`` is the one that stands out most, listed or not. A split
falls into fixed whole batches and a shard is a run of them, so that the numbers of an entry do not depend on how many shards
there are.
"""

import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from d2rnet.errors import DatasetError
from d2rnet.files.documents import read_jsonl, write_jsonl
from d2rnet.files.hashes import sha256_file
from d2rnet.report.annotation_file import Entry, load_annotation
from d2rnet.report.decoder.beam_search import Decoded, SearchOptions
from d2rnet.report.decoder.sampling import SamplingOptions, entry_draws, sample_reports
from d2rnet.report.interface import Batch, Encoded, FrontEnd
from d2rnet.report.model_files import CONFIG, VOCABULARY, WEIGHTS, LoadedModel, load_model
from d2rnet.report.settings import GenerationSettings
from d2rnet.report.text.protocols import SENTENCE_END, clean_report, split_sentences
from d2rnet.report.text.vocabulary import BOS_ID, EOS_ID, PAD_ID
from d2rnet.runs.provenance import write_run_record
from d2rnet.runs.shards import check_count, read_records
from d2rnet.training.task import Entries, make_loader

log = logging.getLogger(__name__)
LOG_PROB_DIGITS = 5


def shard_bounds(count: int, *, batch_size: int, shard: int, shards: int) -> tuple[int, int]:
    """Return first and one past last entry of shard 1..shards: a run of whole batches."""
    batches = -(-count // batch_size)
    first = batches * (shard - 1) // shards
    last = batches * shard // shards
    return min(first * batch_size, count), min(last * batch_size, count)


def load_for_generation(folder: Path, device: torch.device, settings: GenerationSettings, front_end: FrontEnd) -> LoadedModel:
    """Load a model folder (see :func:`load_model`) in the precision of the settings."""
    loaded = load_model(folder, device, front_end)
    if settings.precision == "bf16-true":
        loaded.model.transformer.to(torch.bfloat16)
    return loaded


def write_reports(
    loaded: LoadedModel,
    entries: Sequence[Entry],
    dataset: Entries,
    settings: GenerationSettings,
    device: torch.device,
    ends: Counter[str],
    *,
    loader_workers: int = 0,
) -> Iterator[dict[str, Any]]:
    """Write the reports of entries.

    Args:
        loaded: of :func:`load_for_generation`.
        entries: entries of annotation.json.
        dataset: the same entries as the model looks at them.
        settings: how reports are written.
        device: where the model is.
        ends: grows by reports that end by themselves (``own``) and at ``max_tokens`` (``cut``).
        loader_workers: processes that prepare batches.

    Yields:
        A line of test.jsonl per entry, in order.
    """
    places = range(len(entries))
    batches = [list(places[first : first + settings.batch_size]) for first in places[:: settings.batch_size]]
    loader = make_loader(dataset, batches, dataset.collate, workers=loader_workers)
    for chosen, batch in zip(batches, loader, strict=True):
        yield from _write_batch(loaded, [entries[place] for place in chosen], batch.to(device), settings, ends)


@torch.no_grad()
def _write_batch(
    loaded: LoadedModel, entries: Sequence[Entry], batch: Batch, settings: GenerationSettings, ends: Counter[str]
) -> Iterator[dict[str, Any]]:
    encoded = loaded.model.encode(batch)
    decoded = _decode(loaded, encoded, [entry["id"] for entry in entries], settings)
    written = decoded.token_ids[:, : int((decoded.token_ids != PAD_ID).sum(dim=1).max())]
    start = torch.full_like(written[:, :1], BOS_ID)
    attention = loaded.model.region_attention(encoded, torch.cat([start, written], dim=1)).cpu()  # (B, T, R)
    log_probs = decoded.log_probs.tolist()
    for row, (ids, entry) in enumerate(zip(written.tolist(), entries, strict=True)):
        tokens = loaded.vocabulary.decode(ids)
        ends["own" if EOS_ID in ids else "cut"] += 1
        yield {
            "id": entry["id"],
            "reference": clean_report(entry["report"], loaded.vocabulary.protocol),
            "hypothesis": " ".join(tokens),
            "log_prob": round(log_probs[row], LOG_PROB_DIGITS),
            "sentences": ground_sentences(
                tokens,
                attention[row, :, : len(entry.get("boxes", ()))],
                least_share=settings.grounding_share,
                least_contrast=settings.grounding_contrast,
                cut=EOS_ID not in ids,
            ),
        }


def _decode(loaded: LoadedModel, encoded: Encoded, names: Sequence[str], settings: GenerationSettings) -> Decoded:
    """Write token ids by the configured method; ``names`` are the entries' ids."""
    rules: dict[str, Any] = {
        "max_tokens": settings.max_tokens,
        "min_tokens": settings.min_tokens,
        "no_repeat_ngram": settings.no_repeat_ngram,
    }
    if settings.method == "beam":
        options = SearchOptions(beam_size=settings.beam_size, length_penalty=settings.length_penalty, **rules)
        return loaded.model.generate(encoded, options)
    sampling = SamplingOptions(temperature=settings.temperature, top_p=settings.top_p, **rules)
    draws = entry_draws(names, seed=settings.seed, max_tokens=settings.max_tokens)
    return sample_reports(loaded.model.transformer, encoded.tokens, encoded.mask, sampling, draws)


def ground_sentences(
    tokens: list[str], attention: Tensor, *, least_share: float, least_contrast: float, cut: bool = False
) -> list[dict[str, Any]]:
    """Say which boxes each sentence looks at.

    Most of a box's share is the same for all sentences, whatever they say; what tells one from another is the contrast to
    the report's mean (docs/explanation/report-model.md has numbers). A report of one sentence has no contrast.

    Args:
        tokens: T tokens of a report.
        attention: (at least T, K) share of cross-attention that each of K lesions gets while a token is written.
        least_share: a box is listed if its mean share over the sentence's tokens is at least this ...
        least_contrast: ... and at least so many times its mean share over the report's tokens.
        cut: the report stopped at the length limit; a last sentence without its end gets no box, for it says nothing yet.

    Returns:
        ``text``, ``boxes`` (by falling share) and ``attended`` (the box whose share grows most over its mean of the report,
        listed or not; None where there is no box) of each sentence. The texts joined by spaces are the report.
    """
    sentences = split_sentences(tokens)
    has_contrast = len(sentences) > 1
    usual = attention[: len(tokens)].mean(dim=0).clamp(min=torch.finfo(attention.dtype).tiny)  # (K,)
    needed = (usual * least_contrast * has_contrast).clamp(min=least_share)
    grounded = []
    start = 0
    for sentence in sentences:
        shares = attention[start : start + len(sentence)].mean(dim=0)  # (K,)
        order = torch.argsort(shares, descending=True, stable=True).tolist()
        unfinished = cut and start + len(sentence) == len(tokens) and sentence[-1] != SENTENCE_END
        boxes = [] if unfinished else [box for box in order if shares[box] >= needed[box]]
        standing_out = shares / usual if has_contrast else shares
        attended = int(standing_out.argmax()) if order and not unfinished else None
        grounded.append({"text": " ".join(sentence), "boxes": boxes, "attended": attended})
        start += len(sentence)
    return grounded


def gather_reports(*, annotation: Path, shards: list[Path], output: Path, settings: GenerationSettings) -> None:
    """Join the shards of generate_reports in the order of annotation.json.

    Args:
        annotation: the file that the reports were written for.
        shards: JSON lines file of every shard, its run record beside it.
        output: JSON lines file to write; ``run.json`` is written beside it.
        settings: those of the shards.

    Raises:
        DatasetError: a shard is missing, there twice, cut, or of another run, model, annotation.json or setting; an entry
            of the split is missing, is there twice, or is not in one split of annotation.json.
    """
    runs = read_records(
        shards,
        command="generate-reports-shard",
        settings=settings,
        files={"annotation": sha256_file(annotation)},
        alike=(WEIGHTS, VOCABULARY, CONFIG),
        counted="reports",
    )
    records: dict[str, dict[str, Any]] = {}
    for path, run in zip(shards, runs, strict=True):
        before = len(records)
        for number, record in enumerate(read_jsonl(path), start=1):
            name = record.get("id")
            if not isinstance(name, str):
                raise DatasetError(f"{path}: record {number}: got id {name!r}; expected a text. Generate the shards again.")
            if name in records:
                raise DatasetError(f"{path}: entry {name} is in the shards twice. Generate the shards again.")
            records[name] = record
        check_count(path, run, "reports", len(records) - before)
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
        settings=settings,
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
