"""d2rnet clean: what may go goes, and only when told to; what is in use, unfinished or unknown stays."""

import os
from pathlib import Path

import pytest
from earlier_version import begun_with, having

from d2rnet.cli import entry as cli
from d2rnet.cli.clean import Kept, Leftover, clean, find_leftovers
from d2rnet.errors import ConfigError
from d2rnet.exit_codes import ExitCode
from d2rnet.files.atomic import write_text
from d2rnet.files.documents import read_json, write_json
from d2rnet.runs.workdir import hold_lock, open_work_dir
from d2rnet.settings import Section


class Rate(Section):
    """Settings of a stage."""

    lr: int = 0


ALL = "stale,finished,caches,shards"


def work_folder(run: Path, settings: Section, *, stage: str = "train_detector") -> Path:
    """A work folder of a stage, left by a process that is done."""
    write_text(run / "train.json", "[1]")
    with open_work_dir(run / "work" / "cxr" / stage, settings=settings, inputs={"train": run / "train.json"}) as folder:
        (folder / "checkpoint.pth").write_bytes(bytes(1000))
        (folder / "tensorboard").mkdir(exist_ok=True)
        (folder / "tensorboard" / "events").write_bytes(bytes(500))
    return folder


def finish(run: Path, folder: Path, *, stage: str = "train_detector", more: dict | None = None) -> None:
    """Write the run record that the stage would write, which may hold more settings."""
    identity = read_json(folder / "fingerprint.json")
    inputs = {name: {"file": "train.json", "sha256": sha256} for name, sha256 in identity["inputs"].items()}
    write_json(
        run / "results" / "cxr" / stage / "run.json", {"settings": identity["settings"] | (more or {}), "inputs": inputs}
    )


def kinds(run: Path) -> dict[str, str]:
    """Folder -> kind, or why it is kept."""
    found = {str(item.path.relative_to(run)): item for item in find_leftovers(run)}
    return {path: item.kind if isinstance(item, Leftover) else item.why for path, item in found.items()}


def test_a_folder_that_the_record_names_made_it_whatever_its_settings(tmp_path):
    """As of a detector whose ``batch_images``, or a report model whose ``crop_chunk``, is not the default."""
    old, now = work_folder(tmp_path, Rate(lr=1)), work_folder(tmp_path, Rate(lr=2))
    finish(tmp_path, now, more={"lr": 3})
    record = tmp_path / "results/cxr/train_detector/run.json"
    write_json(record, read_json(record) | {"work_folder": now.name})
    assert kinds(tmp_path) == {
        f"work/cxr/train_detector/{old.name}": "stale",
        f"work/cxr/train_detector/{now.name}": "finished",
    }


def test_work_folders_of_a_finished_stage(tmp_path):
    old, now = work_folder(tmp_path, Rate(lr=1)), work_folder(tmp_path, Rate(lr=2))
    finish(tmp_path, now, more={"log_every_iters": 4})
    assert kinds(tmp_path) == {
        f"work/cxr/train_detector/{old.name}": "stale",
        f"work/cxr/train_detector/{now.name}": "finished",
    }


def test_the_work_folder_of_an_earlier_version_that_made_a_result(tmp_path):
    """The record holds the settings of now: one that came since, none that is gone and was off."""
    folder = work_folder(tmp_path, Rate(lr=1))
    finish(tmp_path, folder, more={"crops": True})
    begun_with(folder.parent, having(boxes=None))
    assert list(kinds(tmp_path).values()) == ["finished"]
    begun_with(folder.parent, having(boxes=1))
    assert list(kinds(tmp_path).values()) == ["stale"]


def test_values_are_compared_as_those_of_an_earlier_version(tmp_path):
    """1 is 1.0, but not true."""
    folder = work_folder(tmp_path, Rate(lr=1))
    for value, kind in ((1.0, "finished"), (True, "stale")):
        finish(tmp_path, folder, more={"lr": value})
        assert list(kinds(tmp_path).values()) == [kind]


def test_result_of_other_inputs_makes_a_folder_stale(tmp_path):
    folder = work_folder(tmp_path, Rate(lr=1))
    finish(tmp_path, folder)
    record = read_json(tmp_path / "results/cxr/train_detector/run.json")
    record["inputs"]["train"]["sha256"] = "0"
    write_json(tmp_path / "results/cxr/train_detector/run.json", record)
    assert list(kinds(tmp_path).values()) == ["stale"]


def test_a_stage_without_a_result_keeps_everything(tmp_path):
    folder = work_folder(tmp_path, Rate(lr=1))
    cache = tmp_path / "work/cxr/train_detector/images/0123456789ab"
    write_text(cache / "pixels.u8", "x")
    assert all("without a finished result" in why or "may want to resume" in why for why in kinds(tmp_path).values())
    assert clean(run=tmp_path, kinds=ALL, delete=True) == 0
    assert folder.is_dir() and cache.is_dir()


def test_dry_run_changes_nothing_and_delete_keeps_what_was_not_asked(tmp_path, capsys):
    old, now = work_folder(tmp_path, Rate(lr=1)), work_folder(tmp_path, Rate(lr=2))
    finish(tmp_path, now)
    before = sorted(tmp_path.rglob("*"))
    assert cli.main(["clean", "--run", str(tmp_path)]) == 0
    assert sorted(tmp_path.rglob("*")) == before
    shown = capsys.readouterr().out
    assert f"would go  {old} (stale, 1." in shown and f"not asked {now} (finished" in shown and "nothing was deleted" in shown
    assert cli.main(["clean", "--run", str(tmp_path), "--delete"]) == 0
    assert not old.exists() and now.is_dir()
    assert cli.main(["clean", "--run", str(tmp_path), "--delete", "--kinds", "finished"]) == 0
    assert not now.exists() and (tmp_path / "results/cxr/train_detector/run.json").is_file()


def test_a_held_folder_stays(tmp_path, capsys):
    old, now = work_folder(tmp_path, Rate(lr=1)), work_folder(tmp_path, Rate(lr=2))
    finish(tmp_path, now)
    with hold_lock(old / ".lock", what=old, doing="training"):
        assert clean(run=tmp_path, kinds=ALL, delete=True) == ExitCode.PARTLY
    assert (old / "checkpoint.pth").is_file() and not now.exists()
    assert f"held      {old}" in capsys.readouterr().out


@pytest.mark.parametrize("change", ["name", "identity", "damaged", "link", "strange"])
def test_what_is_not_exactly_ours_stays(tmp_path, change):
    folder = work_folder(tmp_path, Rate(lr=1))
    finish(tmp_path, work_folder(tmp_path, Rate(lr=2)))
    victim = folder.with_name("00000000dead")
    if change == "name":
        folder.rename(victim)
    elif change == "link":
        folder.rename(tmp_path / "elsewhere")
        victim = folder
        victim.symlink_to(tmp_path / "elsewhere")
    elif change == "strange":
        victim.mkdir()
        write_text(victim / "thesis.txt", "x")
    else:
        victim = folder
        write_text(folder / "fingerprint.json", '{"settings": {"lr": 3}, "inputs": {}}' if change == "identity" else "{")
    reasons = {item.path: item.why for item in find_leftovers(tmp_path) if isinstance(item, Kept)}
    assert list(reasons) == [victim]
    assert clean(run=tmp_path, kinds=ALL, delete=True) == 0
    assert victim.exists() and (change != "link" or (tmp_path / "elsewhere/checkpoint.pth").is_file())


def test_caches_of_a_finished_stage(tmp_path):
    finish(tmp_path, work_folder(tmp_path, Rate(lr=1), stage="train_report_model"), stage="train_report_model")
    images, crops, foreign = (tmp_path / "work/cxr/train_report_model/images" / (letter * 12) for letter in "abc")
    for folder, names in (
        (images, ("pixels.u8", "done.u8")),
        (crops, ("crops.u8", "done.u8")),
        (foreign, ("done.u8", "notes")),
    ):
        for name in names:
            write_text(folder / name, "x")
    assert clean(run=tmp_path, kinds="caches", delete=True) == 0
    assert not images.exists() and not crops.exists() and foreign.is_dir()


def test_a_cache_that_cells_of_an_ablation_share_stays_while_one_may_resume(tmp_path):
    """Whether or not the run's own report model is trained."""
    images = tmp_path / "work/cxr/train_report_model/images/0123456789ab"
    for name in ("pixels.u8", "done.u8", ".pixels.89ab.part.u8"):
        write_text(images / name, "x")
    first, second = "ablation/tokens/seed_1", "ablation_inputs/all/seed_2"
    finish(tmp_path, work_folder(tmp_path, Rate(lr=1), stage=first), stage=first)
    other = work_folder(tmp_path, Rate(lr=1), stage=second)
    kept = f"no finished result in {tmp_path / 'results/cxr' / second}; the run may want to resume, with this cache"
    assert kinds(tmp_path)["work/cxr/train_report_model/images/0123456789ab"] == kept
    finish(tmp_path, work_folder(tmp_path, Rate(lr=1), stage="train_report_model"), stage="train_report_model")
    assert clean(run=tmp_path, kinds="caches", delete=True) == 0 and images.is_dir()
    finish(tmp_path, other, stage=second)
    (tmp_path / "results/cxr/train_report_model/run.json").unlink()
    assert clean(run=tmp_path, kinds="caches", delete=True) == 0 and images.is_dir(), "the report model's own work folder"
    (tmp_path / "work/cxr/train_report_model" / other.name / "fingerprint.json").unlink()
    assert clean(run=tmp_path, kinds="caches", delete=True) == 0 and not images.exists()


def test_shards_go_once_they_are_joined(tmp_path):
    results = tmp_path / "results/cxr/predict_boxes"
    for name in ("1-of-2.json", "2-of-2.json", "1-of-2.run.json", "2-of-2.run.json"):
        write_text(results / "shards" / name, "[]")
    assert kinds(tmp_path) == {"results/cxr/predict_boxes/shards": f"not joined to {results / 'predictions.json'} yet"}
    write_text(results / "predictions.json", "[]")
    assert kinds(tmp_path) == {"results/cxr/predict_boxes/shards": "shards"}
    write_text(results / "shards" / "2-of-2.json", "[1]")
    assert "not joined" in kinds(tmp_path)["results/cxr/predict_boxes/shards"]
    write_text(results / "predictions.json", "[1]")
    assert clean(run=tmp_path, kinds="shards", delete=True) == 0
    assert sorted(path.name for path in results.iterdir()) == ["predictions.json"]


def extraction(run, key, seconds, name="train_1.safetensors"):
    """Features of a CT under a key, written so many seconds after the epoch."""
    folder = run / "results/ct/extract_ct_features/features" / key
    write_text(folder / "volumes" / "0a" / name, "x")
    for path in (folder / "volumes" / "0a" / name, folder / "volumes" / "0a", folder / "volumes", folder):
        os.utime(path, (seconds, seconds))
    return folder


def test_features_of_an_older_stage_one_go(tmp_path):
    now, old, coming = (extraction(tmp_path, digit * 12, when) for digit, when in (("a", 20), ("b", 10), ("c", 40)))
    foreign = extraction(tmp_path, "d" * 12, 10, "thesis.txt")
    assert set(kinds(tmp_path).values()) == {
        f"no finished result in {tmp_path / 'results/ct/extract_ct_features'}; the run may want to resume"
    }
    index = tmp_path / "results/ct/extract_ct_features/features.json"
    write_json(index, {"facts": {"key": now.name}})
    os.utime(index, (30, 30))
    found = {Path(path).name: why for path, why in kinds(tmp_path).items()}
    assert found.keys() == {old.name, coming.name, foreign.name} and found[old.name] == "stale"
    assert "newer than" in found[coming.name] and found[foreign.name] == "not only features of this package"
    assert clean(run=tmp_path, kinds=ALL, delete=True) == 0
    assert sorted(path.name for path in now.parent.iterdir()) == [now.name, coming.name, foreign.name]


def test_joined_shards_of_a_chest_ct_run_go(tmp_path):
    results = tmp_path / "results/ct/extract_ct_features"
    for name in ("1-of-1.jsonl", "1-of-1.run.json"):
        write_text(results / "shards" / name, "{}")
    assert "not joined to" in kinds(tmp_path)["results/ct/extract_ct_features/shards"]
    write_json(results / "features.json", {"facts": {"key": "a" * 12}})
    assert kinds(tmp_path) == {"results/ct/extract_ct_features/shards": "shards"}


def test_foreign_file_among_shards_keeps_them(tmp_path):
    write_text(tmp_path / "results/cxr/predict_boxes/shards/mine.json", "[]")
    write_text(tmp_path / "results/cxr/predict_boxes/predictions.json", "[]")
    assert kinds(tmp_path) == {"results/cxr/predict_boxes/shards": "not only shards of this package"}


def test_mistakes_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="expected the folder of a run"):
        clean(run=tmp_path, kinds="stale", delete=False)
    with pytest.raises(ConfigError, match="unknown kind 'all'; expected some of stale, finished"):
        clean(run=tmp_path, kinds="all", delete=False)
