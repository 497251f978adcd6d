"""Demo reports: what they say agrees with the findings; headers vary as in MIMIC-CXR; mirrored pictures are caught."""

import re
from collections import Counter

import numpy as np
import pytest
from laterality import check_laterality

from d2rnet.cxr.demo.findings import OPTIONS, Finding, deal_findings
from d2rnet.cxr.demo.mimic import CHEXPERT_LABELS, chexpert_labels, plan_studies
from d2rnet.cxr.demo.reports import (
    HEADER_VARIANTS,
    Report,
    finding_sentence,
    format_report,
    header_variants,
    write_report,
)
from d2rnet.findings.classes import CATEGORY_NAMES


def _all_findings():
    for category in CATEGORY_NAMES:
        for option in OPTIONS[category]:
            yield Finding(category, option.side, option.zone, 0.9, option.kind)


@pytest.mark.parametrize("finding", list(_all_findings()), ids=lambda f: f"{f.category} {f.kind} {f.side} {f.zone}")
def test_sentence_names_side_and_zone_of_the_finding_and_no_other(finding):
    for seed in range(8):
        text = finding_sentence(finding, np.random.default_rng(seed)).lower()
        assert "{" not in text and text.endswith(".")
        if finding.side in ("left", "right") and finding.category not in ("Aortic enlargement", "Enlarged PA"):
            assert finding.side in text
        other = {"left": "right", "right": "left"}.get(finding.side, "no other")
        assert other not in text
        assert not re.search(r"\b(small|mild|moderate)\b", text)
        if finding.zone and finding.category != "Atelectasis":
            assert finding.zone in text


def test_reports_have_3_to_7_sentences_and_a_small_vocabulary():
    words: Counter[str] = Counter()
    rng = np.random.default_rng(0)
    lengths = set()
    texts = []
    for findings in deal_findings(600, rng):
        report = write_report(findings, rng)
        lengths.add(report.findings.count("."))
        words.update(re.findall(r"[a-z]+", report.findings.lower()))
        texts.append(report.findings)
    assert lengths <= set(range(3, 8))
    assert 230 <= len(words) <= 400
    assert len(set(texts)) > 500


def test_normal_sentences_never_contradict_a_finding():
    for seed in range(60):
        rng = np.random.default_rng(seed)
        text = write_report([Finding("Pleural effusion", "left"), Finding("Cardiomegaly")], rng).findings.lower()
        assert "no pleural effusion" not in text and "heart size is normal" not in text
        assert not re.search("normal in size|within normal limits|heart is not enlarged", text)
        text = write_report([Finding("Pneumothorax", "left"), Finding("Pleural effusion", "right")], rng).findings.lower()
        assert not re.search("no (pneumothorax|pleural|effusion)", text)
        text = write_report([Finding("Consolidation", "left", "upper")], rng).findings.lower()
        assert not re.search("clear|focal", text)


def test_header_variants_are_dealt_by_share():
    dealt = Counter(header_variants(200, np.random.default_rng(0)))
    assert dealt == {
        "plain": 160,
        "impression_only": 8,
        "findings_and_impression": 6,
        "views_header": 12,
        "addendum": 8,
        "no_header": 6,
    }


@pytest.mark.parametrize("variant", HEADER_VARIANTS)
def test_report_layout_of_each_variant(variant):
    report = Report("The ill-defined air-fluid lungs are well-circumscribed. " * 8 + "END.", "Normal chest radiograph.")
    text = format_report(report, variant, ["PA", "LATERAL"], np.random.default_rng(1))
    headers = re.findall(r"^ ([A-Z ,()]+):", text, flags=re.M)
    assert text.splitlines()[0].strip() == "FINAL REPORT"
    assert max(map(len, text.splitlines())) <= 80
    body = " ".join(text.split())
    if variant != "impression_only":
        assert report.findings in body  # wrapping breaks no word
    assert ("END." in body) == (variant != "impression_only")
    expected = {
        "plain": ["FINDINGS", "IMPRESSION"],
        "impression_only": ["IMPRESSION"],
        "findings_and_impression": ["FINDINGS AND IMPRESSION"],
        "views_header": ["CHEST, TWO VIEWS", "IMPRESSION"],
        "addendum": ["FINDINGS", "FINDINGS", "IMPRESSION"],
        "no_header": [],
    }[variant]
    assert headers[4:] == expected if variant != "no_header" else headers == []


def test_report_holds_blanks_and_non_ascii_utf8():
    text = format_report(Report("A.", "B."), "plain", ["AP"], np.random.default_rng(1))
    assert "___" in text and any(ord(letter) > 127 for letter in text)


LEFT_BOX, RIGHT_BOX, MIDDLE_BOX = (70.0, 10.0, 20.0, 20.0), (10.0, 10.0, 20.0, 20.0), (40.0, 10.0, 20.0, 20.0)


@pytest.mark.parametrize(
    "boxes, report, contradictions",
    [
        (
            [("Pleural effusion", LEFT_BOX)],
            "There is a small left pleural effusion.",
            0,
        ),  # patient's left: right of the picture
        ([("Pleural effusion", RIGHT_BOX)], "There is a small left pleural effusion.", 1),
        ([("Pleural effusion", LEFT_BOX), ("Pleural effusion", RIGHT_BOX)], "A left pleural effusion.", 0),
        ([("Pleural effusion", MIDDLE_BOX)], "A left pleural effusion.", 0),
        ([("Pleural effusion", RIGHT_BOX)], "No left pleural effusion.", 0),
        ([("Pleural effusion", RIGHT_BOX)], "Left and right pleural effusions.", 0),
        (
            [("Nodule/Mass", RIGHT_BOX), ("Rib fracture", LEFT_BOX)],
            "A right lung mass. A left lateral rib fracture is noted.",
            0,
        ),
        (
            [("Nodule/Mass", LEFT_BOX), ("Rib fracture", RIGHT_BOX)],
            "A right lung mass. A left lateral rib fracture is noted.",
            2,
        ),
        ([], "A left pleural effusion.", 0),
    ],
)
def test_check_laterality(boxes, report, contradictions):
    assert len(check_laterality(boxes, report, 100.0)) == contradictions


def test_studies_of_a_patient_share_one_split_and_two_views_exist():
    plans = plan_studies({"train": 60, "val": 10, "test": 20}, np.random.default_rng(4))
    assert Counter(plan.split for plan in plans) == {"train": 60, "validate": 10, "test": 20}
    splits: dict[int, set[str]] = {}
    for plan in plans:
        splits.setdefault(plan.subject_id, set()).add(plan.split)
    assert all(len(found) == 1 for found in splits.values())
    assert len(splits) < 90  # some patients have several studies
    assert len({plan.study_id for plan in plans}) == 90
    assert {"PA", "AP", "LATERAL"} == {view for plan in plans for view in plan.views}
    assert plans[0].image_path("x").as_posix() == (
        f"files/p{str(plans[0].subject_id)[:2]}/p{plans[0].subject_id}/s{plans[0].study_id}/x.jpg"
    )


def test_chexpert_labels_follow_the_text():
    labels = chexpert_labels(
        [Finding("Nodule/Mass", "left", "mid", 0.5, "mass")], "A mass. There is no pleural effusion or pneumothorax."
    )
    assert tuple(labels) == CHEXPERT_LABELS
    assert {name: value for name, value in labels.items() if value is not None} == {
        "Lung Lesion": 1.0,
        "Pleural Effusion": 0.0,
        "Pneumothorax": 0.0,
    }
    assert chexpert_labels([], "Normal.")["No Finding"] == 1.0
