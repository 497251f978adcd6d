"""Reports of the demo cohort are cut into the structures that they were written of, and say the labels that were drawn."""

import numpy as np
import pytest
from demo_scores import KINDS, demo_rates, draw_list, read_reports

from d2rnet.ct.demo.phantom import FINDINGS, draw_phantom
from d2rnet.ct.demo.settings import CtDemoSettings
from d2rnet.ct.demo.wording import ABNORMAL
from d2rnet.findings.ct_classes import CT_ABNORMALITIES


@pytest.fixture(scope="module")
def rates():
    return demo_rates()


def test_every_sentence_reaches_its_structure(rates):
    """A sentence may be another structure's too: "bronchiectasis in the left lower lobe" speaks of bronchi and lung."""
    found = rates["sentence of"]
    assert len(found) == 11
    assert all(entry["recall"] >= 0.99 for entry in found.values()), found
    assert found["all"]["precision"] >= 0.96


def test_mentioned_structures(rates):
    found = rates["structure mentioned"]
    assert all(min(entry["recall"], entry["precision"]) >= 0.98 for name, entry in found.items() if name != "lung"), found
    assert found["lung"]["recall"] == 1 and found["lung"]["precision"] >= 0.95


def test_labels(rates):
    found = rates["abnormality"]
    assert set(found) == {*CT_ABNORMALITIES, "all"}
    assert all(min(entry["recall"], entry["precision"]) >= 0.98 for entry in found.values()), found


def test_sentences_are_cut_where_they_were_joined():
    for _, report, read in read_reports(60):
        written = sorted(text for texts in report.sentences.values() for text in texts)
        assert sorted(one.text.strip() for one in read.sentences) == written


def test_the_lists_are_what_the_cohort_draws():
    """Of every finding a volume is drawn once; what it notes is what this list may hold."""
    settings = CtDemoSettings(in_plane_voxels=48, slice_mm=10.0)
    drawn = draw_phantom(np.random.default_rng(1), np.random.default_rng(2), settings, labels=tuple(FINDINGS)).drawn
    assert {one.label for one in drawn} == set(FINDINGS)
    assert all((one.structure, one.kind) in KINDS[one.label] for one in drawn)
    assert {kind for kinds in KINDS.values() for _, kind in kinds} == set(ABNORMAL)
    assert {one.kind for seed in range(200) for one in draw_list(np.random.default_rng(seed))} == set(ABNORMAL)
