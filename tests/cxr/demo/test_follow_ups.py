"""Follow-ups of the demo cohort: what is said of a change is true of the study before, and the default cohort knows none."""

import hashlib
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from demo_samples import SMALL

from d2rnet.cxr.demo import cohort as demo
from d2rnet.cxr.demo.findings import OPTIONS, Finding
from d2rnet.cxr.demo.follow_ups import LEAST_STEP, MOST_FINDINGS, follow, go_on, slots_of
from d2rnet.cxr.demo.mimic import plan_studies
from d2rnet.cxr.demo.reports import changed_sentence
from d2rnet.cxr.demo.wording import CHANGE_WORDS, COMPLAINTS, FINDING_TEMPLATES, INDICATIONS
from d2rnet.cxr.sources import mimic
from d2rnet.cxr.sources.clinical_context import checked_text
from d2rnet.cxr.sources.settings import ReportSourceSettings
from d2rnet.files.documents import read_jsonl
from d2rnet.files.problems import Problems
from d2rnet.findings.mentions import named_classes

# Of every path and byte of SMALL's reports and truth.jsonl, before there were follow-ups.
DEFAULT_TEXTS = "61ca7d60aec249ed8499eef63a0790c6e03b2f02c6e73d48feed406faf815ad7"
ALL_FINDINGS = [
    Finding(category, option.side, option.zone, 0.5, option.kind)
    for category, options in OPTIONS.items()
    for option in options
]  # fmt: skip


def test_a_cohort_without_follow_ups_is_what_it_was(tmp_path: Path) -> None:
    demo.make_demo_cohort(output=tmp_path / "cohort", workers=1, settings=SMALL.replaced(difficulty=0.3))
    digest = hashlib.sha256()
    for path in sorted((tmp_path / "cohort").rglob("*")):
        if path.suffix == ".txt" or path.name == "truth.jsonl":
            digest.update(path.relative_to(tmp_path / "cohort").as_posix().encode() + path.read_bytes())
    assert digest.hexdigest() == DEFAULT_TEXTS


def test_changes_are_true_of_the_study_before() -> None:
    rng = np.random.default_rng(3)
    seen = set()
    for _ in range(300):
        before = [ALL_FINDINGS[0], ALL_FINDINGS[int(rng.integers(4, 40))]]
        before = [replace(finding, size=round(float(rng.random()), 3)) for finding in before]
        after, changes = follow(before, rng)
        assert len(after) == len(changes) <= MOST_FINDINGS
        sizes = {finding.category: finding.size for finding in before}
        for finding, change in zip(after, changes, strict=True):
            seen.add(change)
            step = finding.size - sizes.get(finding.category, 0)
            assert (change == "new") == (finding.category not in sizes)
            assert 0 <= finding.size <= 1
            if change != "new":
                wanted = {"unchanged": 0, "increased": 1, "decreased": -1}[change]
                assert np.sign(round(step, 6)) == wanted and (not wanted or abs(step) >= LEAST_STEP - 1e-3)
        slots = [slots_of(finding) for finding in after if finding not in before[:1]]
        assert changes[-1:] != ("new",) or not slots[-1] & frozenset().union(*slots[:-1])
    assert seen == {*CHANGE_WORDS}


def test_slots_by_hand() -> None:
    assert slots_of(Finding("Nodule/Mass", "left", "upper", kind="nodule")) == {"left-upper"}
    assert slots_of(Finding("Cardiomegaly")) == {"heart", "left-lower"}


def test_studies_of_a_patient_go_on_in_order_of_their_dates() -> None:
    counts = {"train": 400, "val": 10, "test": 10}
    plans = plan_studies(counts, np.random.default_rng(5))
    gone_on = go_on(plans, np.random.default_rng(6))
    assert [plan.study_id for plan in gone_on] == [plan.study_id for plan in plans]
    dates = [plan.year * 10_000 + plan.number // 28 % 12 * 100 + plan.number % 28 for plan in gone_on]
    for (before, first), (plan, second) in pairwise(zip(gone_on, dates, strict=True)):
        assert plan.is_follow_up == (plan.subject_id == before.subject_id)
        if plan.is_follow_up:
            assert second > first and plan.split == before.split and len(plan.changes) == len(plan.findings)
        else:
            assert plan.findings == plans[plan.number].findings and not plan.changes
    assert 100 < sum(plan.is_follow_up for plan in gone_on) < 250


@pytest.mark.parametrize("change", CHANGE_WORDS)
def test_a_changed_finding_is_still_read_as_there(change: str) -> None:
    rng = np.random.default_rng(1)
    for finding in ALL_FINDINGS:
        sentence = changed_sentence(finding, change, rng)
        assert sentence.endswith("prior study.") and sentence.count("prior") == 1
        assert finding.category in named_classes(sentence), sentence


def test_indications_name_no_finding_and_are_read_whole() -> None:
    every = {*INDICATIONS, *(text for texts in COMPLAINTS.values() for text in texts)}
    for text in every:
        whole = f"___ year old man with {text}. Evaluate the patient\u2019s chest."
        assert not named_classes(whole) or text in ("fall",), text
        assert checked_text(whole, [template for texts in FINDING_TEMPLATES.values() for template in texts]).text == whole


def test_the_source_reads_what_follow_ups_tell(tmp_path: Path) -> None:
    demo.make_demo_cohort(output=tmp_path / "cohort", workers=1, settings=SMALL.replaced(follow_ups=True))
    truth = {
        str(record["study_id"]): record for record in read_jsonl(tmp_path / "cohort" / "truth.jsonl") if "study_id" in record
    }
    problems = Problems()
    table = mimic.read_table(ReportSourceSettings(root=str(tmp_path / "cohort" / "mimic"), context=True), problems)
    assert not len(problems) and table.counts["reports_without_time"] == 0 and table.counts["indications_refused"] == 0
    with_header = [
        row for row in table.reports.itertuples(index=False) if truth[row.study_id]["header_variant"] != "no_header"
    ]
    assert len(with_header) > 30
    assert all(truth[row.study_id]["indication"] in row.indication for row in with_header)
    said = [(row.report, truth[row.study_id]["changes"]) for row in with_header if truth[row.study_id]["changes"]]
    assert said and all(report.count("prior study") == len(changes) for report, changes in said)
