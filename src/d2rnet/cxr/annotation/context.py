"""What an entry tells beside images, boxes and report: views, the indication, the patient's study before.

A study before is the latest one of the same patient that is earlier in time and has a report with words and an image in the
same split; of two at the same time neither is before the other. An indication that holds a sentence of the target, or tells a
finding of it, is refused here, by the target itself, whatever its source has checked.
"""

import logging
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from d2rnet.cxr.annotation.inputs import ImageTable, view_of
from d2rnet.cxr.images.views import image_before
from d2rnet.cxr.sources.told_findings import leaked
from d2rnet.errors import DatasetError

log = logging.getLogger(__name__)
Study = tuple[dict[str, Any], list[int]]  # a report and the rows of its images
NEEDED = {"indication": "indication", "prior": "study_time"}  # part of the context -> key of reports.jsonl


class EntryContext:
    """Tells the further keys of an entry.

    Attributes:
        parts: ``cxr.annotation.context``.
        refused: study id -> sentences of the target that its indication holds, and parts of it that tell a finding.
    """

    def __init__(self, parts: Sequence[str], images: ImageTable, studies: Sequence[Study]) -> None:
        """Find the study before of each study.

        Args:
            parts: ``cxr.annotation.context``.
            images: images of unlabelled.json.
            studies: reports and the rows of their images.
        """
        self.parts = parts
        self._images = images
        self._priors = priors_of(studies) if "prior" in parts else {}
        self.refused: dict[str, list[str]] = {}
        self._reports = [report for report, rows in studies if rows]
        self._indications = (
            {report["study_id"]: self._indication(report) for report in self._reports} if "indication" in parts else {}
        )

    def of(self, report: Mapping[str, Any], rows: Sequence[int], boxes_of: Callable[[int], dict[str, Any]]) -> dict[str, Any]:
        """Return the keys of an entry.

        Args:
            report: of reports.jsonl.
            rows: of the entry's images.
            boxes_of: row of an image -> its ``boxes``, ``scores`` and ``labels``.
        """
        told: dict[str, Any] = {}
        if "views" in self.parts:
            told["views"] = [self._view(row) for row in rows]
        if "indication" in self.parts:
            told["indication"] = self._indications[report["study_id"]]
        if "prior" in self.parts:
            told["prior"] = self._prior(report, boxes_of)
        return told

    def counts(self) -> dict[str, int]:
        """Count studies with images by what they tell."""
        counts = {}
        if "indication" in self.parts:
            counts["studies_with_indication"] = sum(map(bool, self._indications.values()))
            counts["indications_refused"] = len(self.refused)
        if "prior" in self.parts:
            before = [(report, self._priors.get(report["study_id"])) for report in self._reports]
            counts["studies_with_prior"] = sum(study is not None for _, study in before)
            counts["studies_without_time"] = sum(not report["study_time"] for report in self._reports)
            counts["priors_of_the_same_report"] = sum(bool(old and old[0]["report"] == new["report"]) for new, old in before)
        return counts

    def refusals(self) -> Iterator[dict[str, Any]]:
        """Yield a record for each refused indication: ``study_id`` and the ``sentences`` that leak."""
        for study_id, sentences in sorted(self.refused.items()):
            yield {"study_id": study_id, "sentences": sentences}

    def _view(self, row: int) -> str:
        return view_of(self._images.records[row])

    def _indication(self, report: Mapping[str, Any]) -> str:
        """Return why a study was taken, "" where that would tell the target; that is noted in ``refused``."""
        told = leaked(report["indication"], report["report"])
        if told:
            self.refused[report["study_id"]] = told
            return ""
        return str(report["indication"])

    def _prior(self, report: Mapping[str, Any], boxes_of: Callable[[int], dict[str, Any]]) -> dict[str, Any] | None:
        """Return the study before: its report, and one of its images with its boxes."""
        study = self._priors.get(report["study_id"])
        if study is None:
            return None
        before, rows = study
        row = rows[image_before([self._view(row) for row in rows])]
        image = self._images.records[row]
        sizes = {"height": image["source_height"], "width": image["source_width"]}
        shown = {"image_id": image["source_id"], **sizes, **boxes_of(row)}
        return {"study_id": before["study_id"], "report": before["report"], **shown}


def priors_of(studies: Sequence[Study]) -> dict[str, Study]:
    """Find the latest earlier study of each study, of the same patient and split, among those with images.

    Args:
        studies: reports with ``study_time``, and the rows of their images.

    Returns:
        Study id -> the study before it; those without one are left out.
    """
    of_patient: dict[tuple[str, str], list[Study]] = defaultdict(list)
    for report, rows in studies:
        if rows and report["study_time"]:
            of_patient[report["subject_id"], report["split"]].append((report, rows))
    found = {}
    for own in of_patient.values():
        own.sort(key=lambda study: study[0]["study_time"])  # of two at one time, the one that ``studies`` has later
        for place, (report, _) in enumerate(own):
            earlier = [study for study in own[:place] if study[0]["study_time"] < report["study_time"]]
            if earlier:
                found[report["study_id"]] = earlier[-1]
    return found


def check_told(reports: Sequence[Mapping[str, Any]], parts: Sequence[str], *, source: Path) -> None:
    """Refuse reports that do not tell what the entries shall tell.

    Args:
        reports: records of reports.jsonl.
        parts: ``cxr.annotation.context``.
        source: reports.jsonl, for messages.

    Raises:
        DatasetError: a record lacks a key, or has something else than text under it.
    """
    for key in (NEEDED[part] for part in parts if part in NEEDED):
        lacking = [report["study_id"] for report in reports if not isinstance(report.get(key), str)]
        if lacking:
            raise DatasetError(
                f"{source}: {len(lacking)} of {len(reports)} reports, such as that of study {lacking[0]}, have no text under "
                f"'{key}', which cxr.annotation.context asks for. Set cxr.data.reports.context to true, which brings "
                f"{' and '.join(NEEDED.values())}, and run from verify-inputs on again."
            )
