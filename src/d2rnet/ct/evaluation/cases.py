"""The volumes of a split that are scored: reference, generated report, patient, labels, and what is missing.

Reads: test.jsonl of generate-ct-reports, ct_annotation.json. A volume without a generated report is a missing prediction: it
is counted, and scored only where it is said so, as an empty report.

Shapes: N volumes.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from d2rnet.errors import DatasetError
from d2rnet.evaluation.caption_scores import single_spaced
from d2rnet.evaluation.report_pairs import read_pairs
from d2rnet.files.problems import Problems
from d2rnet.report.annotation_file import Entry
from d2rnet.report.text.protocols import clean_report

COMMAND = "generate-ct-reports"


@dataclass(frozen=True)
class Cases:
    """N volumes with reference and answer.

    Attributes:
        entries: of ct_annotation.json.
        references: cleaned reports of their studies, none empty.
        hypotheses: generated reports; may be empty.
    """

    entries: Sequence[Entry]
    references: Sequence[str]
    hypotheses: Sequence[str]

    @property
    def ids(self) -> list[str]:
        """Id of each volume."""
        return [entry["id"] for entry in self.entries]

    @property
    def patients(self) -> list[str]:
        """Patient of each volume."""
        return [entry["subject_id"] for entry in self.entries]

    def weights(self, level: str) -> NDArray[np.float64]:
        """Return (N,): 1 at level volume; at level scan one over the volumes of the same study among these."""
        volumes = Counter(entry["study_id"] for entry in self.entries)
        return np.array([1 / volumes[entry["study_id"]] if level == "scan" else 1.0 for entry in self.entries])

    def sizes(self) -> dict[str, int]:
        """Count volumes, scans and patients."""
        scans = {entry["study_id"] for entry in self.entries}
        return {"volumes": len(self.entries), "scans": len(scans), "patients": len(set(self.patients))}


@dataclass(frozen=True)
class Split:
    """A split, what was generated for it and what was not.

    Attributes:
        name: of the split.
        answered: volumes with a generated report, in the order of the file.
        missing: volumes without one; hypotheses are empty.
        without_reference: volumes whose report is empty once it is cleaned: nothing to compare with.
    """

    name: str
    answered: Cases
    missing: Cases
    without_reference: int

    def everything(self) -> Cases:
        """Return answered and missing volumes, the missing ones with an empty report."""
        both = self.answered, self.missing
        return Cases(
            [entry for one in both for entry in one.entries],
            [text for one in both for text in one.references],
            [text for one in both for text in one.hypotheses],
        )


def read_split(generated: Path, splits: dict[str, list[Entry]], *, protocol: str) -> Split:
    """Match generated reports with the entries of ct_annotation.json.

    Args:
        generated: JSON lines file with ``id``, ``reference``, ``hypothesis``.
        splits: of ct_annotation.json.
        protocol: text protocol of the report model.

    Raises:
        FileNotFoundError: there is no such file.
        DatasetError: it is not what its format says, or its references are not the reports of the annotation, cleaned.
    """
    pairs = read_pairs(generated, splits, command=COMMAND)
    by_id = {entry["id"]: entry for entry in splits[pairs.split]}
    problems = Problems()
    for name, reference in zip(pairs.ids, pairs.references, strict=True):
        expected = _reference(by_id[name], protocol)
        if reference != expected:
            problems.add(
                "other_reference",
                file=generated,
                record=f"id {name}",
                got=f"reference '{reference[:80]}'",
                expected=f"'{expected[:80]}', the report of ct_annotation.json under protocol {protocol}",
                remedy=f"Run 'd2rnet {COMMAND}' again with this annotation and model.",
            )
    problems.raise_if_any()
    answered = Cases([by_id[name] for name in pairs.ids], pairs.references, pairs.hypotheses)
    known = set(pairs.ids)
    absent = [(entry, _reference(entry, protocol)) for name, entry in by_id.items() if name not in known]
    left = [(entry, text) for entry, text in absent if text]
    missing = Cases([entry for entry, _ in left], [text for _, text in left], [""] * len(left))
    return Split(pairs.split, answered, missing, len(absent) - len(left))


def _reference(entry: Entry, protocol: str) -> str:
    return single_spaced(clean_report(entry["report"], protocol))


def data_version(counts: dict[str, Any], path: Path) -> dict[str, Any]:
    """Return what counts.json of verify-ct-inputs says of the data: its name, source, section, reconstructions, left out.

    Raises:
        DatasetError: another document.
    """
    part = counts.get("ct")
    try:
        settings = part["settings"]["reports"]  # type: ignore[index]
        found = {key: settings[key] for key in ("source", "section", "reconstructions")}
        release = part.get("release", settings["release"])  # type: ignore[union-attr]
        left_out = part["source"].get("volumes_no_chest", 0)  # type: ignore[index]
    except (KeyError, TypeError) as error:
        expected = "expected counts.json of 'd2rnet verify-ct-inputs'"
        raise DatasetError(f"{path}: got another document ({error}); {expected}.") from error
    name = f"{found['source']}/{release}" if release else found["source"]
    return {**found, "data": name, "no_chest_left_out": left_out}
