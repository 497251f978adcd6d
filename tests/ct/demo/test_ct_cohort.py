"""The CT demo cohort: what is drawn is what labels, masks and reports say, whatever the number of workers."""

import hashlib
import json
import re
from pathlib import Path

import nibabel
import numpy as np
import pytest

from d2rnet.ct.demo.chest_findings import LARGE_HEART
from d2rnet.ct.demo.cohort import STRUCTURE_CODES, make_ct_demo_cohort
from d2rnet.ct.demo.phantom import FINDINGS, OTHER_PREVALENCE, PREVALENCE, draw_phantom
from d2rnet.ct.demo.reports import write_report
from d2rnet.ct.demo.settings import CtDemoSettings
from d2rnet.ct.demo.wording import ABNORMAL, IMPRESSION, NORMAL
from d2rnet.ct.sources.ct_rate import read_table
from d2rnet.ct.sources.settings import CtSourceSettings
from d2rnet.files.documents import read_json, read_jsonl
from d2rnet.files.problems import Problems
from d2rnet.findings.ct_classes import CT_ABNORMALITIES

SMALL = CtDemoSettings(train_patients=12, valid_patients=2, in_plane_voxels=64, slice_mm=8.0)
FINE = CtDemoSettings(in_plane_voxels=96, slice_mm=5.0)


@pytest.fixture(scope="module")
def cohort(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("cohort") / "demo"
    make_ct_demo_cohort(output=folder, workers=2, settings=SMALL)
    return folder


def hashes(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "run.json"
    }


def test_files_do_not_depend_on_workers(cohort, tmp_path):
    make_ct_demo_cohort(output=tmp_path / "again", workers=1, settings=SMALL)
    assert hashes(tmp_path / "again") == hashes(cohort)


def test_the_layout_is_ct_rate(cohort):
    problems = Problems()
    table = read_table(CtSourceSettings(root=str(cohort / "ct_rate"), val_fraction=0.2), problems)
    assert problems.counts() == {}
    truth = {record["study_id"]: record for record in read_jsonl(cohort / "truth.jsonl")}
    assert set(truth) <= set(table.volumes["study_id"])
    assert table.counts["volumes_no_chest"] == 1
    assert table.counts["volumes_other_reconstructions"] == 2
    for study_id, record in truth.items():
        row = table.labels.loc[study_id]
        assert [label for label in CT_ABNORMALITIES if row[label] == 1] == record["labels"]
    assert set(table.volumes["split"]) == {"train", "val", "test"}
    assert read_json(cohort / "cohort.json")["counts"]["studies"] == len(truth)


def test_volumes_and_masks_lie_in_one_frame_with_the_axes_of_ct_rate(cohort):
    volume = nibabel.load(cohort / "ct_rate/dataset/train_fixed/train_2/train_2_a/train_2_a_1.nii.gz")
    assert nibabel.aff2axcodes(volume.affine) == ("L", "P", "S")
    assert volume.get_data_dtype() == np.int16
    assert volume.dataobj.slope == 1
    for name in ("train_2_a", "train_2_a_abnormal"):
        mask = nibabel.load(cohort / "masks" / f"{name}.nii.gz")
        assert mask.shape == volume.shape
        np.testing.assert_array_equal(mask.affine, volume.affine)


@pytest.mark.parametrize("label", FINDINGS)
def test_an_abnormality_is_drawn_where_its_mask_is(label):
    """The same patient without it is drawn from the same random numbers, so that only the abnormality differs."""
    with_it = draw_phantom(np.random.default_rng(5), np.random.default_rng(6), FINE, labels=(label,))
    without = draw_phantom(np.random.default_rng(5), np.random.default_rng(6), FINE, labels=())
    mask = with_it.masks[label]
    assert mask.any()
    difference = np.abs(with_it.hu - without.hu)
    assert difference[mask].mean() > 60
    if label not in ("Cardiomegaly", "Mosaic attenuation pattern"):  # these change what lies around them too
        assert difference[~mask].mean() < 0.02 * difference[mask].mean()
    assert [one.label for one in with_it.drawn] == [label]


@pytest.mark.parametrize("label", FINDINGS)
def test_what_is_found_in_a_structure_is_part_of_its_mask(label):
    """So that attention to it counts as attention to the structure: fluid is pleura and no lung, a hernia is oesophagus."""
    phantom = draw_phantom(np.random.default_rng(5), np.random.default_rng(6), FINE, labels=(label,))
    structures = [one.structure for one in phantom.drawn]
    inside = np.logical_or.reduce([phantom.structures[name] for name in structures])
    assert inside[phantom.masks[label]].all()
    if label in ("Pleural effusion", "Hiatal hernia", "Pericardial effusion"):
        assert not phantom.structures["lung"][phantom.masks[label]].any()


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(
    "label", ["Lung nodule", "Consolidation", "Atelectasis", "Bronchiectasis", "Pleural effusion", "Chest wall mass"]
)
def test_sides_are_the_patients(label, seed):
    phantom = draw_phantom(np.random.default_rng(seed), np.random.default_rng(seed + 50), FINE, labels=(label,))
    columns = np.argwhere(phantom.masks[label])[:, 2]
    middle = (
        phantom.structures["heart_mediastinum_vessels"].shape[2] / 2 + phantom.scan.shift_yx[1] / phantom.scan.spacing_zyx[2]
    )
    left = (columns > middle).mean()  # x grows to the patient's left
    side = phantom.drawn[0].side
    assert {"left": left > 0.9, "right": left < 0.1, "bilateral": 0.2 < left < 0.8}[side]


def test_the_heart_is_left_and_the_liver_right():
    phantom = draw_phantom(np.random.default_rng(1), np.random.default_rng(2), FINE, labels=())
    shift = phantom.scan.shift_yx[1] / phantom.scan.spacing_zyx[2]
    middle = phantom.hu.shape[2] / 2 + shift
    _, _, heart = np.nonzero(phantom.structures["heart_mediastinum_vessels"])
    assert heart.mean() > middle
    rows = phantom.hu[: phantom.hu.shape[0] // 5]  # the lowest slices
    soft = (rows > 40) & (rows < 130) & phantom.structures["abdomen"][: rows.shape[0]]
    _, _, abdomen = np.nonzero(soft)
    assert (abdomen < middle).mean() > 0.5


@pytest.mark.parametrize("seed", range(4))
def test_a_large_heart_takes_half_of_the_chest(seed):
    """The cardiothoracic ratio, above 0.5 with cardiomegaly and below without."""
    phantom = draw_phantom(np.random.default_rng(seed), np.random.default_rng(2), FINE, labels=("Cardiomegaly",))
    chest = np.ptp(np.nonzero(phantom.structures["lung"])[2])
    heart = np.ptp(np.nonzero(phantom.masks["Cardiomegaly"])[2])
    assert heart / LARGE_HEART < 0.5 * chest < heart


def test_a_report_tells_what_was_drawn_and_nothing_else():
    for seed in range(60):
        phantom = draw_phantom(np.random.default_rng(seed), np.random.default_rng(seed), SMALL)
        report = write_report(phantom.drawn, np.random.default_rng(seed))
        for one in phantom.drawn:
            told = " ".join(report.sentences[one.structure])
            if one.size_mm and "{size}" in " ".join(ABNORMAL[one.kind]):
                assert re.search(rf"\b{one.size_mm} mm", told), (one, told)
            if one.place and one.kind not in ("emphysema", "mosaic", "septal thickening"):
                assert one.place in told
        assert report.findings.count(".") >= sum(map(len, report.sentences.values()))
        assert "{" not in report.findings
        labels = {one.label for one in phantom.drawn}
        if "Pleural effusion" not in labels:
            assert not re.search(r"pleural effusion (with|measuring)", report.findings)
        if labels:
            assert all(IMPRESSION[label].split(",")[0] in report.impression for label in labels)


def test_structures_go_unmentioned_as_in_real_reports():
    mentioned = [set(write_report([], np.random.default_rng(seed)).sentences) for seed in range(300)]
    share = {name: np.mean([name in one for one in mentioned]) for name in ("thyroid", "breast_axilla_chest_wall", "lung")}
    assert share["thyroid"] < 0.25 < share["breast_axilla_chest_wall"] < 0.6 < 0.9 < share["lung"]


def test_every_abnormality_is_frequent_enough_to_be_learnt():
    assert set(PREVALENCE) == set(CT_ABNORMALITIES)
    assert set(PREVALENCE | OTHER_PREVALENCE) == set(FINDINGS)
    assert min((PREVALENCE | OTHER_PREVALENCE).values()) >= 0.08


def test_every_structure_has_a_finding_that_its_sentences_tell():
    settings = CtDemoSettings(in_plane_voxels=64, slice_mm=8.0)
    drawn = draw_phantom(np.random.default_rng(1), np.random.default_rng(2), settings, labels=tuple(FINDINGS)).drawn
    assert {one.structure for one in drawn} == set(STRUCTURE_CODES)
    sentences = write_report(drawn, np.random.default_rng(3)).sentences
    assert "multinodular goitre" in " ".join(sentences["thyroid"]) or "thyroid gland is enlarged" in sentences["thyroid"][0]
    assert not set(sentences["bone"]) & set(NORMAL["bone"][0])


def test_unusable_files_are_listed_and_bad(cohort):
    base = cohort / "ct_rate/dataset"
    assert (base / "metadata/no_chest_train.txt").read_text().split() == ["train_13_a_1.nii.gz"]
    with pytest.raises(EOFError):
        nibabel.load(base / "train_fixed/train_14/train_14_a/train_14_a_1.nii.gz").get_fdata()
    text = base / "train_fixed/train_15/train_15_a/train_15_a_1.nii.gz"
    assert text.read_bytes().startswith(b"404")


def test_truth_is_json(cohort):
    for line in (cohort / "truth.jsonl").read_text().splitlines():
        record = json.loads(line)
        assert set(record) == {"study_id", "volumes", "labels", "drawn", "sentences"}
