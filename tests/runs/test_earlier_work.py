"""A training goes on after an update that adds settings; what really changed begins anew and is told."""

import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import pytest
from earlier_version import begun_with, having, lacking

from d2rnet.ct.report_model.settings import TrainCtReportModelSettings
from d2rnet.ct.structure_model.settings import TrainStructuresSettings
from d2rnet.cxr.detector.settings import TrainDetectorSettings
from d2rnet.cxr.report_model.settings import TrainReportModelSettings
from d2rnet.errors import D2RNetError
from d2rnet.files.documents import read_json
from d2rnet.runs import earlier_work, workdir
from d2rnet.runs.earlier_work import IDENTITY, Comparison, OtherWork, compare_stored, is_off
from d2rnet.runs.workdir import hold_lock, open_work_dir
from d2rnet.settings import Section, WhereAbsent, leaves, setting, subsection, where_absent

TRAINERS = (TrainDetectorSettings, TrainReportModelSettings, TrainCtReportModelSettings, TrainStructuresSettings)


class Loss(Section):
    """A section in a section."""

    weight: float = 1.0
    kind: str | None = None


class Training(Section):
    """Settings of a stage."""

    place = "wing.stage"

    lr: float = 0.1
    steps: int = 3
    loss: Loss = Loss(weight=0.5)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "train.json"
    path.write_text("[1]")
    return path


def begin(tmp_path: Path, settings: Section, change: Any = None) -> Path:
    """Leave a work folder with a checkpoint, begun with settings changed by ``change``."""
    with open_work_dir(tmp_path / "work", settings=settings, inputs={"train": tmp_path / "train.json"}) as folder:
        (folder / "checkpoint").write_text("state")
    return folder if change is None else begun_with(tmp_path / "work", change)


def go_on(tmp_path: Path, settings: Section) -> Path:
    with open_work_dir(tmp_path / "work", settings=settings, inputs={"train": tmp_path / "train.json"}) as folder:
        return folder


@pytest.mark.parametrize("section", TRAINERS, ids=lambda section: section.__name__)
def test_whatever_setting_a_trainer_gets_its_stored_settings_stay_the_same(section):
    """One by one each setting is the new one, then all of each section; each has its first default."""
    now = section().replaced(**where_absent(section))
    keys = [key for key, _ in leaves(section)]
    sections = [name for name, field in section.model_fields.items() if subsection(field.annotation) is not None]
    assert len(keys) > 20
    for key in [*keys, *sections]:
        stored = now.to_json()
        lacking(key)(stored)
        compared = compare_stored(stored, now)
        named = [line.split(" (")[0] for line in compared.later]
        wanted = [f"{section.place}.{leaf}" for leaf in keys if leaf == key or leaf.startswith(f"{key}.")]
        assert (named, compared.gone, compared.differing) == (wanted, (), ())


@pytest.mark.parametrize("section", TRAINERS, ids=lambda section: section.__name__)
def test_every_trainer_goes_on_in_the_folder_of_an_earlier_version(tmp_path, source, section):
    """What it began with is kept, so that it is found once more, by that version, too."""
    name = next(iter(section.model_fields))
    begun = begin(tmp_path, section(), lacking(name))
    stored = (begun / IDENTITY).read_bytes()
    for _ in range(2):
        assert go_on(tmp_path, section()) == begun
    assert (begun / "checkpoint").is_file() and (begun / IDENTITY).read_bytes() == stored
    assert [path.name for path in (tmp_path / "work").iterdir()] == [begun.name]


def test_no_trainer_hides_settings_in_a_list_or_mapping():
    """A new setting of a section in a list would be seen as another list."""
    for section in TRAINERS:
        for key, field in leaves(section):
            assert "Settings" not in str(field.annotation), key
            assert not field.is_required(), key


def test_what_came_since_is_named_with_its_value(tmp_path, source, caplog):
    caplog.set_level(logging.INFO)
    begun = begin(tmp_path, Training(lr=0.3), lacking("steps", "loss.weight"))
    caplog.clear()
    assert go_on(tmp_path, Training(lr=0.3)) == begun
    assert caplog.messages == [
        f"work folder {begun}: same settings and inputs, begun by an earlier version; resuming. New since: "
        "wing.stage.steps (3), wing.stage.loss.weight (0.5)"
    ]


@pytest.mark.parametrize(
    ("now", "told"),
    [
        (Training(lr=0.2), "wing.stage.lr 0.1 there, 0.2 now"),
        (Training(steps=4), "wing.stage.steps unknown there (as 3), 4 now"),
        (Training(loss=Loss(weight=1.0)), "wing.stage.loss.weight 0.5 there, 1.0 now"),
        (Training(loss=Loss(weight=0.5, kind="l1")), 'wing.stage.loss.kind null there, "l1" now'),
    ],
)
def test_a_real_difference_begins_anew_and_says_which_keys_changed(tmp_path, source, caplog, now, told):
    begun = begin(tmp_path, Training(), lacking("steps"))
    folder = go_on(tmp_path, now)
    assert folder != begun and (begun / "checkpoint").read_text() == "state" and not (folder / "checkpoint").exists()
    (warning,) = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert warning.startswith(f"begins anew; not resumed and left as it is: work folder {begun.name} (last written 2")
    assert warning.endswith(f"UTC), of another run: {told}")
    assert go_on(tmp_path, now) == folder and go_on(tmp_path, Training()) == begun


def test_other_contents_of_an_input_are_told(tmp_path, source, caplog):
    begun = begin(tmp_path, Training(), lacking("steps"))
    source.write_text("[2]")
    assert go_on(tmp_path, Training()) != begun
    assert "of another run: input 'train' of other contents now" in caplog.text
    caplog.clear()
    with open_work_dir(tmp_path / "work", settings=Training(), inputs={"weights": source}):
        pass
    assert "of another run: input 'weights' not there, read now; input 'train' read there, not now" in caplog.text


def test_three_folders_are_explained_the_last_written_first_and_the_others_named(tmp_path, source, caplog):
    folders = []
    for number in range(5):
        folders.append(begin(tmp_path, Training(steps=10 + number)))
        os.utime(folders[-1] / "checkpoint", (1e9 + number, 1e9 + number))
        os.utime(folders[-1] / IDENTITY, (1e9, 1e9))
    caplog.clear()
    caplog.set_level(logging.INFO)
    go_on(tmp_path, Training())
    told = [message.rsplit(": ", 1)[1] for message in caplog.messages if message.startswith("begins anew")]
    assert told == [f"wing.stage.steps {steps} there, 3 now" for steps in (14, 13, 12)]
    assert caplog.messages[-1] == f"2 more work folder(s) are left as they are: {folders[1].name}, {folders[0].name}"
    assert f"{folders[4].name} (last written 2001-09-09 01:46 UTC)" in caplog.text


@pytest.mark.parametrize("value", [None, False, "off", "none", [], {"a": None, "b": {"c": False}}])
def test_a_setting_that_is_gone_and_was_off_is_forgotten(tmp_path, source, value):
    begun = begin(tmp_path, Training(), having(crops=value))
    assert go_on(tmp_path, Training()) == begun


@pytest.mark.parametrize(("value", "named"), [(0, "crops (0)"), (True, "crops (true)"), ({"a": None, "b": 2}, "crops.b (2)")])
def test_a_setting_that_is_gone_and_was_on_ends_the_run_by_name(tmp_path, source, value, named):
    """0 may be a seed. Nothing is made, nothing moved."""
    begun = begin(tmp_path, Training(), having(crops=value))
    with pytest.raises(D2RNetError, match=r"settings that this version does not know: wing\.stage\.crops") as refused:
        go_on(tmp_path, Training())
    assert f"wing.stage.{named}. It cannot go on here" in str(refused.value) and str(begun) in str(refused.value)
    assert [path.name for path in (tmp_path / "work").iterdir()] == [begun.name]
    assert go_on(tmp_path, Training(lr=0.2)) != begun, "another run is another run"


def test_two_folders_that_would_go_on_are_not_chosen_from(tmp_path, source):
    first = begin(tmp_path, Training(), lacking("steps"))
    aside = first.rename(tmp_path / first.name)
    second = begin(tmp_path, Training(), lacking("lr"))
    aside.rename(first)
    with pytest.raises(D2RNetError, match=r"2 work folders of earlier versions have these settings.*expected one"):
        go_on(tmp_path, Training())
    first.rename(aside)
    assert go_on(tmp_path, Training()) == second


def test_a_folder_of_its_own_comes_first_and_the_earlier_one_is_told(tmp_path, source, caplog):
    """As where an update had begun a training anew."""
    begun = begin(tmp_path, Training(), lacking("steps"))
    aside = begun.rename(tmp_path / begun.name)
    own = begin(tmp_path, Training())
    aside.rename(begun)
    assert go_on(tmp_path, Training()) == own
    assert f"work folder {begun.name} (last written" in caplog.text and "same settings by an earlier version" in caplog.text


@pytest.mark.parametrize("damage", ["renamed", "no JSON", "no settings", "a list"])
def test_a_folder_that_does_not_say_what_it_is_never_goes_on(tmp_path, source, caplog, damage):
    begun = begin(tmp_path, Training(), lacking("steps"))
    if damage == "renamed":
        begun = begun.rename(begun.with_name("00000000dead"))
    else:
        text = {"no JSON": "{", "no settings": '{"inputs": {}}', "a list": "[]"}[damage]
        (begun / IDENTITY).write_text(text)
    assert go_on(tmp_path, Training()) != begun
    assert f"{IDENTITY} cannot be read, or does not belong to the folder's name" in caplog.text
    assert (begun / "checkpoint").is_file()


def test_an_earlier_folder_in_use_is_refused(tmp_path, source):
    begun = begin(tmp_path, Training(), lacking("steps"))
    with (
        hold_lock(begun / ".lock", what=begun, doing="training"),
        pytest.raises(D2RNetError, match="is working in this folder"),
    ):
        go_on(tmp_path, Training())


def test_values_are_compared_as_json():
    """A number is a number; a truth value is none. A section that became one setting, or the reverse, is another run."""
    stored = Training().to_json()
    assert compare_stored(stored | {"steps": 3.0}, Training()).differing == ()
    assert compare_stored(stored | {"steps": True}, Training(steps=1)).differing == ("wing.stage.steps true there, 1 now",)
    assert compare_stored(stored | {"loss": 2}, Training()).differing == (
        'wing.stage.loss 2 there, {"weight": 0.5, "kind": null} now',
    )
    assert compare_stored(stored | {"lr": {"a": 1}}, Training()).differing == ('wing.stage.lr {"a": 1} there, 0.1 now',)


def test_off_is_not_zero():
    assert [is_off(value) for value in (0, 0.0, True, "on", [0], 1)] == [False] * 6
    assert is_off({}) and not is_off({"a": 0})


def test_the_stored_settings_stay_those_of_then(tmp_path, source):
    begun = begin(tmp_path, Training(), lacking("loss"))
    go_on(tmp_path, Training())
    assert read_json(begun / IDENTITY)["settings"] == {"lr": 0.1, "steps": 3}


class Net(Section):
    """A section with a setting whose default has changed since it came."""

    width: Annotated[int, WhereAbsent(64)] = setting(32, ge=8)
    depth: int = 18


class Wide(Section):
    """Settings of a stage."""

    place = "wing.stage"

    lr: float = 0.1
    net: Net = Net(depth=50)


def test_what_is_absent_stands_for_the_first_default(tmp_path, source):
    """Not for today's; the defaults of the section around it stay."""
    assert where_absent(Wide) == {"net": {"width": 64}} and where_absent(Training) == {}
    assert Wide().net.width == 32
    begun = begin(tmp_path, Wide(net=Net(width=64, depth=50)), lacking("net.width", "net.depth"))
    assert go_on(tmp_path, Wide(net=Net(width=64, depth=50))) == begun
    stored = read_json(begun / IDENTITY)["settings"]
    assert compare_stored(stored, Wide()).differing == ("wing.stage.net.width unknown there (as 64), 32 now",)
    assert go_on(tmp_path, Wide()) != begun


def test_a_report_model_from_before_the_width_could_be_set_has_the_width_of_then():
    stored = TrainReportModelSettings().to_json()
    lacking("model.backbone_width")(stored)
    told = "cxr.report.model.backbone_width"
    assert compare_stored(stored, TrainReportModelSettings()).differing == (f"{told} unknown there (as 64), 32 now",)
    published = TrainReportModelSettings().replaced(model={"backbone_width": 64})
    assert compare_stored(stored, published) == Comparison((f"{told} (64)",), (), ())


@pytest.mark.parametrize("what", ["deleted", "named anew"])
def test_an_earlier_folder_that_goes_before_it_is_locked_is_not_begun_anew(tmp_path, source, monkeypatch, what):
    """As where d2rnet clean was quicker."""
    begun = begin(tmp_path, Training(), lacking("steps"))

    @contextmanager
    def too_late(lock_file: Path, **words: Any) -> Iterator[None]:
        if what == "deleted":
            shutil.rmtree(begun)
            begun.mkdir()
        else:
            (begun / IDENTITY).write_text('{"settings": {}, "inputs": {}}')
        with hold_lock(lock_file, **words):
            yield

    monkeypatch.setattr(workdir, "hold_lock", too_late)
    with pytest.raises(D2RNetError, match=r"fingerprint\.json: gone or changed since this run chose .* run again"):
        go_on(tmp_path, Training())
    monkeypatch.undo()
    assert go_on(tmp_path, Training()) != begun


def test_each_folder_is_compared_once_and_the_chosen_one_again(tmp_path, source, monkeypatch):
    begun = begin(tmp_path, Training(), lacking("steps"))
    others = [begin(tmp_path, Training(lr=lr)) for lr in (0.2, 0.3)]
    read = []

    def noted(path: Path) -> Any:
        read.append(path.parent)
        return read_json(path)

    monkeypatch.setattr(earlier_work, "read_json", noted)
    assert go_on(tmp_path, Training()) == begun
    assert sorted(read) == sorted([begun, *others, begun]) and read[-1] == begun


def test_files_of_other_folders_may_go_meanwhile(tmp_path, source, monkeypatch):
    begun = begin(tmp_path, Training())
    os.utime(begun / IDENTITY, (1e9, 1e9))
    is_file = Path.is_file
    iterdir = Path.iterdir

    def then_gone(path: Path) -> bool:
        there = is_file(path)
        if path == begun / "checkpoint":
            path.unlink(missing_ok=True)
        return there

    monkeypatch.setattr(Path, "iterdir", lambda path: iter(sorted(iterdir(path))))  # the one that goes comes first
    monkeypatch.setattr(Path, "is_file", then_gone)
    work = OtherWork(begun, Comparison((), (), ()))
    assert str(work) == f"{begun.name} (last written 2001-09-09 01:46 UTC)"
    monkeypatch.undo()
    shutil.rmtree(begun)
    assert str(work) == f"{begun.name} (last written 1970-01-01 00:00 UTC)"
