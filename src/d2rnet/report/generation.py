"""Writing reports: encoded visual tokens to test.jsonl, in shards, and joined again; of any front end.

Writes one JSON line per entry: ``id, reference, hypothesis, log_prob, sentences[{text, ...}]``; what a sentence says beside
its text is its front end's: see :class:`Grounding`. A split falls into fixed whole batches and a shard is a run of them, so
that the numbers of an entry do not depend on how many shards there are.
"""

import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from d2rnet.errors import ConfigError, DatasetError
from d2rnet.files.documents import read_jsonl, write_jsonl
from d2rnet.files.hashes import sha256_file
from d2rnet.report.annotation_file import Entry, Reader, load_annotation
from d2rnet.report.decoder.beam_search import Decoded, Loss, SearchOptions
from d2rnet.report.decoder.sampling import SamplingOptions, entry_draws, sample_reports
from d2rnet.report.interface import Batch, Encoded, FrontEnd
from d2rnet.report.llm.decoder import LlmDecoder
from d2rnet.report.model_files import CONFIG, VOCABULARY, WEIGHTS, LoadedModel, load_model
from d2rnet.report.settings import GenerationSettings
from d2rnet.report.text.protocols import clean_report
from d2rnet.report.text.vocabulary import BOS_ID, EOS_ID, PAD_ID
from d2rnet.runs.provenance import write_run_record
from d2rnet.runs.shards import check_count, read_records
from d2rnet.training.task import Entries, make_loader

log = logging.getLogger(__name__)
LOG_PROB_DIGITS = 5


@dataclass(frozen=True)
class Written:
    """A report as it was written.

    Attributes:
        entry: of the annotation.
        tokens: of the report.
        cut: it stopped at the length limit.
    """

    entry: Entry
    tokens: list[str]
    cut: bool


class Grounding(Protocol):
    """Cuts reports into sentences and says what each stands on."""

    def __call__(
        self, loaded: LoadedModel, batch: Any, encoded: Encoded, token_ids: Tensor, written: Sequence[Written]
    ) -> list[list[dict[str, Any]]]:
        """Return the sentences of each report; their ``text`` joined by spaces is the report.

        Args:
            loaded: the model.
            batch: what it looked at, B entries.
            encoded: what it saw.
            token_ids: (B, T) from ``<bos>`` on.
            written: the B reports.
        """


class Judge(Protocol):
    """Says what finished reports lose in the search, for what they say or do not."""

    def __call__(self, loaded: LoadedModel, encoded: Encoded) -> Loss | None:
        """Return it for the reports of some entries; None: nothing.

        Args:
            loaded: the model.
            encoded: what it sees of the entries.
        """


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
    ground: Grounding,
    judge: Judge | None = None,
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
        ground: says what each sentence stands on.
        judge: says what reports lose in a beam search; None: nothing.
        loader_workers: processes that prepare batches.

    Yields:
        A line of test.jsonl per entry, in order.
    """
    places = range(len(entries))
    batches = [list(places[first : first + settings.batch_size]) for first in places[:: settings.batch_size]]
    loader = make_loader(dataset, batches, dataset.collate, workers=loader_workers)
    for chosen, batch in zip(batches, loader, strict=True):
        yield from _write_batch(loaded, [entries[place] for place in chosen], batch.to(device), settings, ends, ground, judge)


@torch.no_grad()
def _write_batch(
    loaded: LoadedModel,
    entries: Sequence[Entry],
    batch: Batch,
    settings: GenerationSettings,
    ends: Counter[str],
    ground: Grounding,
    judge: Judge | None,
) -> Iterator[dict[str, Any]]:
    encoded = loaded.model.encode(batch)
    loss = judge(loaded, encoded) if judge else None
    decoded = _decode(loaded, encoded, [entry["id"] for entry in entries], settings, loss)
    ids = decoded.token_ids[:, : int((decoded.token_ids != PAD_ID).sum(dim=1).max())]  # (B, T)
    written = [
        Written(entry, loaded.tokens.decode(row), cut=EOS_ID not in row)
        for entry, row in zip(entries, ids.tolist(), strict=True)
    ]
    ends.update("cut" if report.cut else "own" for report in written)
    start = torch.full_like(ids[:, :1], BOS_ID)
    sentences = ground(loaded, batch, encoded, torch.cat([start, ids], dim=1), written)
    for report, log_prob, grounded in zip(written, decoded.log_probs.tolist(), sentences, strict=True):
        yield {
            "id": report.entry["id"],
            "reference": clean_report(report.entry["report"], loaded.tokens.protocol),
            "hypothesis": " ".join(report.tokens),
            "log_prob": round(log_prob, LOG_PROB_DIGITS),
            "sentences": grounded,
        }


def _decode(
    loaded: LoadedModel, encoded: Encoded, names: Sequence[str], settings: GenerationSettings, loss: Loss | None
) -> Decoded:
    """Write token ids by the configured method; ``names`` are the entries' ids.

    Raises:
        ConfigError: the decoder does not know the method.
    """
    rules: dict[str, Any] = {
        "max_tokens": settings.max_tokens,
        "min_tokens": settings.min_tokens,
        "no_repeat_ngram": settings.no_repeat_ngram,
    }
    if settings.method == "beam":
        options = SearchOptions(beam_size=settings.beam_size, length_penalty=settings.length_penalty, **rules)
        return loaded.model.generate(encoded, options, loss)
    if isinstance(loaded.model.transformer, LlmDecoder):
        raise ConfigError(f"{settings.place}.method: got 'sample'; expected 'beam', the method of language models.")
    sampling = SamplingOptions(temperature=settings.temperature, top_p=settings.top_p, **rules)
    draws = entry_draws(names, seed=settings.seed, max_tokens=settings.max_tokens)
    return sample_reports(loaded.model.transformer, encoded.tokens, encoded.mask, sampling, draws)


def gather_reports(*, annotation: Path, shards: list[Path], output: Path, settings: GenerationSettings) -> None:
    """Join the shards of generate_reports in the order of annotation.json (see :func:`join_reports`).

    Args:
        annotation: annotation.json.
        shards: JSON lines file of every shard, its run record beside it.
        output: JSON lines file to write.
        settings: those of the shards.
    """
    join_reports(
        annotation=annotation,
        shards=shards,
        output=output,
        settings=settings,
        command="generate-reports",
        read=load_annotation,
    )


def join_reports(
    *,
    annotation: Path,
    shards: list[Path],
    output: Path,
    settings: GenerationSettings,
    command: str,
    read: Reader,
) -> None:
    """Join shards of reports in the order of the annotation.

    Args:
        annotation: the file that the reports were written for.
        shards: JSON lines file of every shard, its run record beside it.
        output: JSON lines file to write; ``run.json`` is written beside it.
        settings: those of the shards.
        command: the sub-command that does it; the shards are those of ``<command>-shard``.
        read: reads the annotation.

    Raises:
        DatasetError: a shard is missing, there twice, cut, or of another run, model, annotation.json or setting; an entry
            of the split is missing, is there twice, or is not in one split of annotation.json.
    """
    runs = read_records(
        shards,
        command=f"{command}-shard",
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
    split, order = _split_of(records, annotation, read)
    missing = [name for name in order if name not in records]
    if missing:
        raise DatasetError(
            f"{annotation}: {len(missing)} of {len(order)} entries of split '{split}' are in none of {len(shards)} shards: "
            f"{', '.join(missing[:10])}. Give every shard of one run, or generate them again."
        )
    write_jsonl(output, (records[name] for name in order))
    write_run_record(
        output.with_name("run.json"),
        command=command,
        settings=settings,
        inputs={"annotation": annotation, **{f"shard_{number}": path for number, path in enumerate(shards, start=1)}},
        counts={"split": split, "reports": len(order), "shards": len(shards)},
    )
    log.info("%d %s reports from %d shards: %s", len(order), split, len(shards), output)


def _split_of(records: dict[str, Any], annotation: Path, read: Reader) -> tuple[str, list[str]]:
    """Return the split that generated entries belong to, with all of its ids in order."""
    if not records:
        raise DatasetError(f"{annotation}: the shards hold no report. Generate them again.")
    ids = {split: [entry["id"] for entry in entries] for split, entries in read(annotation).items()}
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
