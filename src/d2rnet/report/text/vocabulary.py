"""Vocabulary: the tokens a report is written with, and the file that keeps them beside the weights.

Reads: annotation.json (training split only). Writes: vocabulary.json, run.json.
Padding, start, end and unknown are four distinct ids, 0 to 3; the other tokens follow in sorted order.
"""

import logging
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from d2rnet.errors import DatasetError
from d2rnet.files.documents import read_json, write_json
from d2rnet.files.hashes import fingerprint
from d2rnet.report.annotation_file import Reader, load_annotation
from d2rnet.report.settings import TextSettings
from d2rnet.report.text.protocols import PROTOCOLS, clean_report
from d2rnet.runs.provenance import write_run_record

log = logging.getLogger(__name__)
FORMAT = "d2rnet-vocabulary-1"
SPECIAL_TOKENS = ("<pad>", "<bos>", "<eos>", "<unk>")
PAD_ID, BOS_ID, EOS_ID, UNK_ID = range(4)


@dataclass(frozen=True)
class SpecialIds:
    """Which ids pad, start and end a report, and which are never written."""

    padding: int
    start: int
    end: int
    never_written: tuple[int, ...]


OWN_IDS = SpecialIds(PAD_ID, BOS_ID, EOS_ID, never_written=(PAD_ID, BOS_ID, UNK_ID))


@dataclass(frozen=True)
class Vocabulary:
    """Token <-> id, with the text protocol under which the tokens were made.

    Attributes:
        tokens: id -> token; the first four are ``SPECIAL_TOKENS``.
        counts: id -> occurrences in the training reports; 0 for special tokens except ``<unk>``.
        protocol: ``r2gen`` or ``faithful``.
        section: report section, such as ``findings``.
        min_token_count: least count of a token.
    """

    tokens: tuple[str, ...]
    counts: tuple[int, ...]
    protocol: str
    section: str
    min_token_count: int

    @cached_property
    def ids(self) -> dict[str, int]:
        """Token -> id."""
        return {token: index for index, token in enumerate(self.tokens)}

    @cached_property
    def hash(self) -> str:
        """12 hex digits that name tokens and protocol; the weights carry them."""
        return fingerprint([self.tokens, self.protocol])

    def __len__(self) -> int:
        return len(self.tokens)

    def encode(self, report: str, *, max_tokens: int) -> list[int]:
        """Clean a report and turn it into ids, from ``<bos>`` to ``<eos>``.

        Args:
            report: text as written.
            max_tokens: a longer report is cut to so many tokens and gets no ``<eos>``, which would be false.
        """
        ids = [self.ids.get(token, UNK_ID) for token in clean_report(report, self.protocol).split()]
        ending = [EOS_ID] if len(ids) <= max_tokens else []
        return [BOS_ID, *ids[:max_tokens], *ending]

    def decode(self, ids: Iterable[int]) -> list[str]:
        """Turn ids into tokens; ``<bos>`` and padding are left out and nothing after ``<eos>`` is read."""
        tokens = []
        for index in ids:
            if index == EOS_ID:
                break
            if index not in (PAD_ID, BOS_ID):
                tokens.append(self.tokens[index])
        return tokens

    def save(self, path: str | Path) -> None:
        """Write vocabulary.json."""
        write_json(
            path,
            {
                "format": FORMAT,
                "protocol": self.protocol,
                "section": self.section,
                "min_token_count": self.min_token_count,
                "hash": self.hash,
                "tokens": list(self.tokens),
                "counts": list(self.counts),
            },
        )


def load_vocabulary(path: str | Path) -> Vocabulary:
    """Read vocabulary.json.

    Raises:
        FileNotFoundError: there is no such file.
        DatasetError: not a vocabulary of this format, or changed since it was written.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; it is made by 'd2rnet build-vocabulary'.")
    content = read_json(path)
    remedy = "Make it again with 'd2rnet build-vocabulary'."
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        found = content.get("format") if isinstance(content, dict) else type(content).__name__
        raise DatasetError(f"{path}: got format {found!r}; expected '{FORMAT}'. {remedy}")
    missing = {"protocol", "section", "min_token_count", "hash", "tokens", "counts"} - set(content)
    if missing:
        raise DatasetError(f"{path}: lacks {', '.join(sorted(missing))}. {remedy}")
    complaint = _content_complaint(content)
    if complaint:
        raise DatasetError(f"{path}: {complaint}. {remedy}")
    vocabulary = Vocabulary(
        tuple(content["tokens"]), tuple(content["counts"]), content["protocol"], content["section"], content["min_token_count"]
    )
    if vocabulary.hash != content["hash"]:
        raise DatasetError(f"{path}: tokens do not belong to its hash {content['hash']}; the file was edited. {remedy}")
    return vocabulary


def _content_complaint(content: dict[str, Any]) -> str | None:
    """Say what is wrong with the values of vocabulary.json, None if nothing is."""
    tokens = content["tokens"]
    counts = content["counts"]
    if not (isinstance(tokens, list) and all(isinstance(token, str) and token.split() == [token] for token in tokens)):
        return "tokens are no list of words"
    if tuple(tokens[: len(SPECIAL_TOKENS)]) != SPECIAL_TOKENS or len(set(tokens)) != len(tokens):
        return f"expected distinct tokens that begin with {' '.join(SPECIAL_TOKENS)}"
    if not (isinstance(counts, list) and len(counts) == len(tokens) and all(type(count) is int for count in counts)):
        return f"counts are no list of {len(tokens)} whole numbers, one per token"
    if content["protocol"] not in list(PROTOCOLS):
        return f"protocol {content['protocol']!r}; expected one of {', '.join(PROTOCOLS)}"
    if not isinstance(content["section"], str) or type(content["min_token_count"]) is not int:
        return "section is no text, or min_token_count no whole number"
    return None


def count_vocabulary(reports: Iterable[str], *, protocol: str, section: str, min_token_count: int) -> Vocabulary:
    """Count the tokens of training reports and keep those seen at least ``min_token_count`` times, sorted."""
    counter = Counter(token for report in reports for token in clean_report(report, protocol).split())
    kept = sorted(token for token, count in counter.items() if count >= min_token_count and token not in SPECIAL_TOKENS)
    unknown = sum(counter.values()) - sum(counter[token] for token in kept)
    counts = (0, 0, 0, unknown, *(counter[token] for token in kept))
    return Vocabulary((*SPECIAL_TOKENS, *kept), counts, protocol, section, min_token_count)


def build_vocabulary(*, annotation: Path, output: Path, settings: TextSettings) -> None:
    """Build vocabulary.json from the training reports of annotation.json (see :func:`write_vocabulary`).

    Args:
        annotation: annotation.json; only its training split is read.
        output: folder for vocabulary.json and run.json.
        settings: text protocol, section, least count.
    """
    write_vocabulary(annotation=annotation, output=output, settings=settings, command="build-vocabulary", read=load_annotation)


def write_vocabulary(*, annotation: Path, output: Path, settings: TextSettings, command: str, read: Reader) -> None:
    """Build vocabulary.json from the training reports.

    Args:
        annotation: annotation.json; only its training split is read.
        output: folder for vocabulary.json and run.json.
        settings: text protocol, section, least count.
        command: the sub-command that does it.
        read: reads the annotation.

    Raises:
        DatasetError: no training report, or no token is frequent enough.
    """
    reports = [entry["report"] for entry in read(annotation)["train"]]
    if not reports:
        raise DatasetError(f"{annotation}: the training split is empty; expected at least one report to take words from.")
    vocabulary = count_vocabulary(
        reports,
        protocol=settings.protocol,
        section=settings.section,
        min_token_count=settings.min_token_count,
    )
    if len(vocabulary) == len(SPECIAL_TOKENS):
        raise DatasetError(
            f"{annotation}: no token occurs {settings.min_token_count} times in {len(reports)} training reports. "
            f"Lower {settings.place}.min_token_count."
        )
    total = sum(vocabulary.counts)
    counts = {
        "training_reports": len(reports),
        "tokens": len(vocabulary),
        "occurrences": total,
        "unknown_occurrences": vocabulary.counts[UNK_ID],
    }
    unknown = 100 * vocabulary.counts[UNK_ID] / total
    log.info(
        "vocabulary (%s): %d tokens from %d training reports, %.2f %% of %d occurrences unknown",
        vocabulary.protocol,
        len(vocabulary),
        len(reports),
        unknown,
        total,
    )
    vocabulary.save(output / "vocabulary.json")
    write_run_record(
        output / "run.json",
        command=command,
        settings=settings,
        inputs={"annotation": annotation},
        counts=counts,
    )
