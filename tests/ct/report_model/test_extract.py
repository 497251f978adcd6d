"""Features of stage 1: what is kept, that neither shard nor batch changes it, and what is refused."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from ct_report_samples import NAMES, SHAPE, extract, extract_one, settings_of, write_structure_model
from pretend_gpu import GPU, pretend_gpu
from safetensors.torch import load_file

from d2rnet.ct.conversion.store import read_array, write_array
from d2rnet.ct.report_model import extract as extraction
from d2rnet.ct.report_model.extract import Extraction, extract_ct_features
from d2rnet.ct.report_model.features import (
    feature_path,
    features_of,
    load_facts,
    read_features,
    read_maps,
    write_features,
)
from d2rnet.ct.report_model.kept import check_kept
from d2rnet.ct.report_model.selection import NONE
from d2rnet.ct.structure_model.model import load_structure_model, scaled
from d2rnet.ct.structure_model.observer import Observation
from d2rnet.errors import ConfigError, DatasetError
from d2rnet.files.documents import read_json, read_jsonl
from d2rnet.report.annotation_file import Entry

CPU = torch.device("cpu")


def entries(cohort: Path) -> list[Entry]:
    return [entry for part in read_json(cohort / "ct_annotation.json").values() for entry in part]


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted((folder / "features").rglob("*.safetensors"))}


def test_features_are_what_stage_1_sees_in_evaluation_mode(ct_cohort, ct_features):
    facts = load_facts(ct_features)
    assert facts.structures == NAMES and facts.grid_zyx == (2, 2, 3) and facts.width == 12 and facts.most_per_structure == 3
    loaded = load_structure_model(ct_cohort / "structures", CPU)
    for entry in entries(ct_cohort):
        stored = torch.from_numpy(np.array(read_array(ct_cohort / "volumes" / entry["volume_path"])))
        volume = scaled(stored[None], loaded.conversion.window_hu)
        with torch.no_grad():
            seen = loaded.model.observe(volume[None])
        path = feature_path(ct_features, facts.key, entry["volume_path"])
        found = read_features(path, facts)
        torch.testing.assert_close(found.observations, seen.tokens[0].half())
        assert torch.equal(found.patch_mask, seen.patch_mask[0])
        assert torch.equal(found.vectors, seen.patches[0][found.top].half())
        order = seen.attention[0].sort(dim=1, descending=True, stable=True)
        assert torch.equal(found.top, order.indices[:, :3]) and torch.equal(found.top_attention, order.values[:, :3])
        torch.testing.assert_close(found.mean, seen.patches[0][seen.patch_mask[0]].mean(dim=0).half())
        greatest = seen.attention[0].amax(dim=1, keepdim=True)
        assert ((read_maps(path) - seen.attention[0]).abs() <= greatest / 255 / 2 + 1e-7).all()
    assert bool(found.patch_mask.all()) or not found.patch_mask[:6].any()


def test_shards_and_loader_processes_change_no_byte(ct_cohort, ct_features, tmp_path):
    whole = contents(ct_features)
    assert len(whole) == 13
    assert contents(extract(ct_cohort, tmp_path, shards=3)) == whole
    assert (tmp_path / "features.json").read_bytes() == (ct_features / "features.json").read_bytes()
    counts = [read_json(tmp_path / f"shards/{shard}-of-3.run.json")["counts"] for shard in (1, 2, 3)]
    assert [(count["volumes"], count["listed"]) for count in counts] == [(4, 13), (4, 13), (5, 13)]


@pytest.mark.parametrize("patches", ["top", "random", "all"])
def test_features_made_on_a_gpu_are_those_of_the_cpu(ct_cohort, tmp_path, monkeypatch, patches):
    settings = settings_of(features={"patches": patches}).features
    wanted = extract(ct_cohort, tmp_path / "cpu", settings)
    monkeypatch.setattr(extraction, "resolve_device", lambda name: GPU)
    with pretend_gpu():
        found = extract(ct_cohort, tmp_path / "gpu", settings)
    assert contents(found) == contents(wanted) and len(contents(found)) == 13


@pytest.mark.parametrize("patches", ["random", "all"])
def test_other_patches_are_kept_if_wanted(ct_cohort, ct_features, tmp_path, patches):
    extract(ct_cohort, tmp_path, settings_of(features={"patches": patches}).features)
    facts, usual = load_facts(tmp_path), load_facts(ct_features)
    assert facts.key != usual.key and facts.patches == patches
    for entry in entries(ct_cohort):
        found = read_features(feature_path(tmp_path, facts.key, entry["volume_path"]), facts)
        top = read_features(feature_path(ct_features, usual.key, entry["volume_path"]), usual)
        assert torch.equal(found.top, top.top) and not torch.equal(found.chosen, top.top)
        if patches == "all":
            assert torch.equal(found.patches[found.top], top.vectors)
            assert not found.patches[~found.patch_mask].any()
        else:
            drawn = found.chosen[found.chosen != NONE].tolist()
            assert len(set(drawn)) == len(drawn) == int(found.patch_mask.sum()) and found.patches is None
            assert not found.vectors[found.chosen == NONE].any()


def test_an_interrupted_extraction_goes_on_and_what_changed_is_made_again(ct_cohort, tmp_path, monkeypatch):
    cohort = tmp_path / "cohort"
    shutil.copytree(ct_cohort, cohort)
    looked: list[str] = []
    original = Extraction.look

    def look(self: Extraction, volume: torch.Tensor, name: str):
        looked.append(name)
        if len(looked) == 5:
            raise KeyboardInterrupt
        return original(self, volume, name)

    monkeypatch.setattr(Extraction, "look", look)
    part = tmp_path / "out/shards/1-of-1.jsonl"
    with pytest.raises(KeyboardInterrupt):
        extract_one(cohort, tmp_path / "out", part, settings_of().features)
    assert not part.exists()
    folder = extract(cohort, tmp_path / "out")
    assert looked[4:5] == looked[5:6] and len(looked) == 14  # the fifth once more, the first four not
    before = read_json(folder / "features.json")
    extract(cohort, folder)
    assert len(looked) == 14 and read_json(folder / "features.json") == before
    assert read_json(folder / "shards/1-of-1.run.json")["counts"]["kept"] == 13
    one, other = entries(cohort)[:2]
    write_array(cohort / "volumes" / one["volume_path"], np.full(SHAPE, 9, dtype=np.uint8))
    broken = feature_path(folder, before["facts"]["key"], other["volume_path"])
    broken.write_bytes(broken.read_bytes()[:200])
    extract(cohort, folder)
    assert sorted(looked[14:]) == sorted([one["id"], other["id"]])
    after = read_json(folder / "features.json")
    assert after["volumes_sha256"] != before["volumes_sha256"] and after["facts"] == before["facts"]


def test_other_weights_or_settings_are_another_key(ct_cohort, ct_features, tmp_path):
    keys = {load_facts(ct_features).key}
    other = write_structure_model(tmp_path / "other", seed=1)
    keys.add(load_facts(extract(ct_cohort, tmp_path / "a", structures=other)).key)
    for number, change in enumerate(({"dtype": "float32"}, {"most_per_structure": 2}, {"precision": "bf16-mixed"})):
        settings = settings_of(features=change).features
        keys.add(load_facts(extract(ct_cohort, tmp_path / str(number), settings)).key)
    assert len(keys) == 5


def test_half_and_bfloat16_are_close_to_single(ct_cohort, tmp_path):
    exact = extract(ct_cohort, tmp_path / "32", settings_of(features={"dtype": "float32"}).features)
    rough = extract(ct_cohort, tmp_path / "16", settings_of(features={"precision": "bf16-mixed"}).features)
    one, other = (read_json(folder / "features.json")["facts"]["key"] for folder in (exact, rough))
    for entry in entries(ct_cohort):
        found = load_file(feature_path(rough, other, entry["volume_path"]))
        wanted = load_file(feature_path(exact, one, entry["volume_path"]))
        assert found["observations"].dtype == torch.float16 and wanted["observations"].dtype == torch.float32
        torch.testing.assert_close(found["observations"].float(), wanted["observations"], rtol=0.05, atol=0.1)


def test_unusable_volumes_are_all_named(ct_cohort, tmp_path):
    cohort = tmp_path / "cohort"
    shutil.copytree(ct_cohort, cohort)
    first, second, third = (cohort / "volumes" / entry["volume_path"] for entry in entries(cohort)[:3])
    first.unlink()
    second.write_bytes(b"no array")
    write_array(third, np.ones((8, 16, 24), dtype=np.uint8))
    with pytest.raises(DatasetError) as refused:
        extract(cohort, tmp_path / "out")
    message = str(refused.value)
    assert message.startswith("3 problem(s)")
    for name, words in ((first, "No such file"), (second, "damaged"), (third, "(8, 16, 24)")):
        assert name.name in message and words in message
    assert not (tmp_path / "out/shards/1-of-1.jsonl").exists()


def observation(**changes) -> Observation:
    values = {
        "tokens": torch.ones(1, 2, 1, 4),
        "patches": torch.ones(1, 3, 4),
        "attention": torch.full((1, 2, 3), 0.25),
        "patch_mask": torch.ones(1, 3, dtype=torch.bool),
    }
    return Observation(**values | changes)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"patches": torch.full((1, 3, 4), 1e5)}, "patches of stage 1 up to 1e.05; expected numbers that float16 can hold"),
        ({"tokens": torch.full((1, 2, 1, 4), torch.nan)}, "observations of stage 1"),
        ({"attention": torch.full((1, 2, 3), torch.inf)}, "attention of stage 1"),
        ({"patch_mask": torch.zeros(1, 3, dtype=torch.bool)}, "nothing but the lowest value"),
    ],
)
def test_numbers_that_cannot_be_kept_are_refused(changes, words):
    with pytest.raises(DatasetError, match=words):
        features_of(observation(**changes), settings_of().features, name="a")


def test_features_of_another_extraction_or_shape_are_refused(ct_cohort, ct_features, tmp_path):
    facts = load_facts(ct_features)
    path = feature_path(ct_features, facts.key, entries(ct_cohort)[0]["volume_path"])
    features, attention = features_of(observation(), settings_of().features, name="a")
    for name, key, words in (
        ("a", "another", "of extraction 'another'; expected"),
        ("b", facts.key, "got shape .* expected shape"),
    ):
        write_features(tmp_path / f"{name}.safetensors", features, attention, metadata={"key": key})
        with pytest.raises(DatasetError, match=rf"{name}\.safetensors: .*{words}"):
            read_features(tmp_path / f"{name}.safetensors", facts)
    (tmp_path / "c.safetensors").write_bytes(path.read_bytes()[:-7])
    with pytest.raises(DatasetError, match=r"c\.safetensors: not a readable safetensors file"):
        read_features(tmp_path / "c.safetensors", facts)
    with pytest.raises(FileNotFoundError, match="extract-ct-features-shard"):
        read_features(tmp_path / "d.safetensors", facts)


def test_shards_of_another_run_or_without_a_volume_are_not_joined(ct_cohort, ct_features, tmp_path):
    settings = settings_of().features
    folder = tmp_path / "out"
    shutil.copytree(ct_features, folder)
    part = folder / "shards/1-of-1.jsonl"

    def join(cohort: Path = ct_cohort) -> None:
        extract_ct_features(annotation=cohort / "ct_annotation.json", shards=[part], output=folder, settings=settings)

    lines = part.read_text().splitlines(keepends=True)
    part.write_text("".join(lines[:-1]))
    with pytest.raises(DatasetError, match="holds 12 volumes, its run record says 13"):
        join()
    part.write_text("".join([*lines[:-1], lines[0]]))
    with pytest.raises(DatasetError, match="holds 12 volumes, its run record says 13"):
        join()
    part.write_text("".join([*lines[:-1], "{}\n"]))
    with pytest.raises(DatasetError, match=r"line 13: expected id, file_name and sha256"):
        join()
    part.write_text("".join([*lines[:-1], json.dumps({"id": "x", "file_name": "../x", "sha256": "0"}) + "\n"]))
    with pytest.raises(DatasetError, match="line 13"):
        join()
    part.write_text("".join(lines))
    (folder / next(iter(read_jsonl(part)))["file_name"]).unlink()
    with pytest.raises(DatasetError, match="is not there any more"):
        join()
    with pytest.raises(ConfigError, match="shard from 1 to 2"):
        extract_one(ct_cohort, folder, part, settings, shard=3, shards=2)


@pytest.mark.parametrize(
    ("patches", "model", "words"),
    [
        ("top", {"selection": "all"}, "'all' needs ct.report.features.patches all; .* extracted with 'top'"),
        ("top", {"selection": "random"}, "needs ct.report.features.patches random or all"),
        ("random", {"selection": "attention"}, "needs ct.report.features.patches top or all"),
        ("top", {"patches_per_structure": 4}, "patches_per_structure: 4; the features hold 3 of each"),
        ("top", {"selection": "none", "observations": False}, "leaves the decoder nothing to see"),
    ],
)
def test_a_selection_that_the_features_do_not_hold_is_refused(ct_features, patches, model, words):
    facts = load_facts(ct_features)
    with pytest.raises(ConfigError, match=rf"ct\.report\.model.*{words}"):
        check_kept(settings_of(model=model).model, type(facts).of(facts.to_json() | {"patches": patches}))


@pytest.mark.parametrize("patches", ["top", "all"])
@pytest.mark.parametrize("selection", ["attention", "random", "all", "mean", "none"])
def test_all_that_is_not_refused_can_be_selected(ct_features, patches, selection):
    facts = load_facts(ct_features)
    facts = type(facts).of(facts.to_json() | {"patches": patches})
    settings = settings_of(model={"selection": selection}).model
    if patches == "top" and selection in ("random", "all"):
        with pytest.raises(ConfigError):
            check_kept(settings, facts)
    else:
        check_kept(settings, facts)


@pytest.mark.parametrize("change", [{"format": "other"}, {"facts": {}}, {"facts": None}])
def test_another_index_is_refused(ct_features, tmp_path, change):
    (tmp_path / "features.json").write_text(json.dumps(read_json(ct_features / "features.json") | change))
    with pytest.raises(DatasetError, match=r"features\.json: .*extract-ct-features' again"):
        load_facts(tmp_path)
    with pytest.raises(FileNotFoundError, match="extract-ct-features'"):
        load_facts(tmp_path / "absent")
