"""The command: files, folders and studies in; what fails is named, what is read stays; nothing is overwritten."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image
from radiograph_samples import draw_chest
from reading_samples import FILES

from d2rnet.cli.entry import main
from d2rnet.errors import DatasetError
from d2rnet.files.documents import read_json, read_jsonl
from d2rnet.reading.inputs import find_inputs, reading_names


@pytest.fixture
def arguments(finished_run: Path, tmp_path: Path) -> list[str]:
    """Options that name models and output."""
    results = finished_run / "results" / "cxr"
    models = ["--detector", str(results / "train_detector"), "--report-model", str(results / "train_report_model")]
    return [*models, "--device", "cpu", "--output", str(tmp_path / "out")]


def test_one_file(finished_run: Path, tmp_path: Path, arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["read", str(finished_run / "images" / FILES["scan"]), *arguments]) == 0
    shown = capsys.readouterr().out
    document = read_json(tmp_path / "out/scan.json")
    assert all(sentence["text"] in shown for sentence in document["sentences"])
    assert "1 of 1 read" in shown and "not a medical device" in shown
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [".d2rnet-read", "scan.html", "scan.json", "scan.png"]


def test_missing_detectron2_is_said_with_the_remedy(finished_run: Path, tmp_path: Path, arguments: list[str]) -> None:
    code = "import sys; sys.modules['detectron2'] = None; from d2rnet.cli import main; sys.exit(main(sys.argv[1:]))"
    words = ["read", str(finished_run / "images" / FILES["scan"]), *arguments]
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert "detectron2, which is not installed; CTs are read without it. docs/how-to/install.md" in done.stderr


def test_folder_with_bad_files(
    finished_run: Path, tmp_path: Path, arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "in"
    (folder / "sub").mkdir(parents=True)
    Image.fromarray(draw_chest((90, 80), 5)).save(folder / "sub/good.png")
    (folder / "bad.jpg").write_bytes(b"\xff\xd8\xff cut off")
    (folder / "notes.txt").write_text("no image")
    assert main(["read", str(folder), *arguments, "--json"]) == 3
    output = capsys.readouterr()
    (line,) = output.out.splitlines()
    assert json.loads(line)["name"] == "sub/good" and (tmp_path / "out/sub/good.html").is_file()
    (failure,) = read_jsonl(tmp_path / "out/failures.jsonl")
    assert failure["files"] == str(folder / "bad.jpg") and "bad.jpg: got" in failure["error"] and failure["name"] == "bad"
    assert "1 of 2 failed" in output.err and "2 images; left out: 1 other files" in output.err
    (folder / "bad.jpg").unlink()
    assert main(["read", str(folder), *arguments]) == 0
    assert not (tmp_path / "out/failures.jsonl").exists(), "of an earlier call"


def test_strict_refuses_what_is_doubtful_and_reads_the_rest(
    tmp_path: Path, arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    Image.fromarray(draw_chest((90, 80), 5)).save(folder / "good.png")
    Image.fromarray(draw_chest((20, 20), 5)).save(folder / "icon.png")
    assert main(["read", str(folder), *arguments]) == 0
    shown = capsys.readouterr().out
    warning = "icon.png: 20 x 20 px; expected at least 48 px a side"
    assert f"  Warning: {warning}" in shown.splitlines() and warning in (tmp_path / "out/icon.html").read_text()
    assert read_json(tmp_path / "out/icon.json")["warnings"][0] == warning
    assert main(["read", str(folder), *arguments, "--strict"]) == 3
    (failure,) = read_jsonl(tmp_path / "out/failures.jsonl")
    assert "icon.png: 20 x 20 px" in failure["error"] and not (tmp_path / "out/icon.json").exists()
    assert main(["read", str(folder / "icon.png"), *arguments, "--strict"]) == 2


def test_name_that_is_not_utf_8_is_a_failure_of_that_file_alone(tmp_path: Path, arguments: list[str]) -> None:
    odd = tmp_path / "in" / os.fsdecode(b"chest\xff.png")
    odd.parent.mkdir()
    for path in (odd, odd.with_name("plain.png")):
        Image.fromarray(draw_chest((90, 80), 5)).save(path)
    assert main(["read", str(odd.parent), *arguments]) == 3
    (failure,) = read_jsonl(tmp_path / "out/failures.jsonl")
    assert failure["name"] == "chest\\xff" and "not UTF-8" in failure["error"]
    assert (tmp_path / "out/plain.json").is_file()


def test_nothing_readable(tmp_path: Path, arguments: list[str]) -> None:
    (tmp_path / "bad.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    assert main(["read", str(tmp_path / "bad.png"), *arguments]) == 2
    assert main(["read", str(tmp_path / "gone.png"), *arguments]) == 2


def test_many_failures_are_all_in_the_file_and_ten_on_the_terminal(
    tmp_path: Path, arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(12):
        (tmp_path / f"in{number}.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    assert main(["read", *map(str, tmp_path.glob("*.png")), *arguments]) == 2
    shown = capsys.readouterr().err
    assert shown.count("failed: ") == 10 and "12 of 12 failed; all of them, one per line" in shown
    assert len(list(read_jsonl(tmp_path / "out/failures.jsonl"))) == 12


def test_study_makes_one_reading_of_all_images(finished_run: Path, tmp_path: Path, arguments: list[str]) -> None:
    assert main(["read", str(finished_run / "images/s1"), "--study", "--coco", *arguments]) == 0
    document = read_json(tmp_path / "out/s1.json")
    assert [image["file"] for image in document["images"]] == ["front.png", "second.jpg"]
    assert {box["image"] for box in document["boxes"]} == {0, 1}
    assert len(read_json(tmp_path / "out/coco/labels.json")["images"]) == 2


def test_inputs_are_never_overwritten(tmp_path: Path, arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    image = tmp_path / "in/chest.png"
    image.parent.mkdir()
    Image.fromarray(draw_chest((90, 80), 5)).save(image)
    before = image.read_bytes()
    for path in (image, image.parent):
        assert main(["read", str(path), *arguments[:-1], str(image.parent)]) == 2
    assert image.read_bytes() == before and list(image.parent.iterdir()) == [image]
    shown = capsys.readouterr().err
    assert "could be overwritten" in shown and "is a folder that is read" in shown


def test_images_are_found_once_and_pictures_of_readings_are_not_read(tmp_path: Path) -> None:
    for name in ("b.PNG", "a.jpg", "deep/c.dicom", "readings/a.png", ".hidden.png", "no_suffix"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"\xff\xd8\xff")
    found = find_inputs([tmp_path / "b.PNG", tmp_path, tmp_path / "readings/a.png"], tmp_path / "readings").images
    assert [path.relative_to(tmp_path).as_posix() for path in found] == [
        "b.PNG",
        "a.jpg",
        "no_suffix",
        "deep/c.dicom",
        "readings/a.png",
    ]
    (tmp_path / "empty").mkdir()
    with pytest.raises(DatasetError, match="empty: no DICOM, PNG or JPG file and no CT volume at any depth"):
        find_inputs([tmp_path / "empty"], tmp_path / "readings")


@pytest.mark.parametrize(
    ("files", "names"),
    [
        (["a/x.png"], ["x"]),
        (["a/x.png", "a/y.dcm"], ["x", "y"]),
        (["a/x.png", "b/x.png"], ["a/x", "b/x"]),
        (["x.png", "x.dcm", "y.png"], ["x.png", "x.dcm", "y"]),
        (["1.2.3", "1.2.4"], ["1.2.3", "1.2.4"]),
    ],
)
def test_readings_have_names_of_their_own(files: list[str], names: list[str]) -> None:
    assert reading_names(map(Path, files)) == names


def test_inputs_behind_links_and_dots_are_not_overwritten(tmp_path: Path, arguments: list[str]) -> None:
    image = tmp_path / "in/chest.png"
    image.parent.mkdir()
    (tmp_path / "zz").mkdir()
    (tmp_path / "link").symlink_to(image.parent)
    Image.fromarray(draw_chest((90, 80), 5)).save(image)
    before = image.read_bytes()
    for path, output in ((image.parent, "link"), (image, "link"), (image, "zz/../in"), (tmp_path / "link", "in")):
        assert main(["read", str(path), *arguments[:-1], str(tmp_path / output)]) == 2
    assert image.read_bytes() == before and list(image.parent.iterdir()) == [image]


def test_inputs_above_the_working_folder_are_not_overwritten(
    tmp_path: Path, arguments: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Names began with '..', and readings were written, or cleared away, beside the inputs."""
    for name in ("here/b/chest.png", "a/chest.png", "a/broken.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(draw_chest((90, 80), 5)).save(tmp_path / name)
    broken = tmp_path / "a/broken.png"
    broken.write_bytes(broken.read_bytes()[:60])
    before = {path: path.read_bytes() for path in (tmp_path / "a").iterdir()}
    monkeypatch.chdir(tmp_path / "here")
    assert main(["read", "../a", "b", *arguments]) == 3
    assert {path: path.read_bytes() for path in (tmp_path / "a").iterdir()} == before
    written = {path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*.json")}
    assert written == {"a/chest.json", "here/b/chest.json"}


def test_readings_of_an_earlier_call_are_no_radiographs(tmp_path: Path) -> None:
    """Overlays were read, where they lay below the folder that was read."""
    for name in ("a.png", "old/a.png", "old/coco/data/a.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(draw_chest((90, 80), 5)).save(tmp_path / name)
    (tmp_path / "old/.d2rnet-read").touch()
    assert find_inputs([tmp_path], tmp_path / "new").images == [tmp_path / "a.png"]
    with pytest.raises(DatasetError, match=r"old: is a folder of readings of 'd2rnet read'; expected DICOM, PNG"):
        find_inputs([tmp_path / "old"], tmp_path / "new")


def test_a_folder_of_other_files_is_not_written_to(tmp_path: Path, arguments: list[str]) -> None:
    Image.fromarray(draw_chest((90, 80), 5)).save(tmp_path / "chest.png")
    (tmp_path / "out").mkdir()
    (tmp_path / "out/chest.html").write_text("somebody's page")
    assert main(["read", str(tmp_path / "chest.png"), *arguments]) == 2
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["chest.html"]


def test_a_failure_leaves_no_earlier_reading(tmp_path: Path, arguments: list[str]) -> None:
    image = tmp_path / "chest.png"
    Image.fromarray(draw_chest((90, 80), 5)).save(image)
    assert main(["read", str(image), "--coco", *arguments]) == 0
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        ".d2rnet-read",
        "chest.json",
        "chest.png",
        "chest.html",
        "coco",
    }
    image.write_bytes(image.read_bytes()[:60])
    assert main(["read", str(image), "--coco", *arguments]) == 2
    assert {path.name for path in (tmp_path / "out").iterdir()} == {".d2rnet-read", "failures.jsonl", "coco"}
    assert not list((tmp_path / "out/coco").rglob("*.png"))


def test_names_of_readings_are_unique() -> None:
    files = [Path("/f/a.png"), Path("/f/a.jpg"), Path("/f/a.png.dcm"), Path("/f/b.png")]
    assert reading_names(files) == ["a.png", "a.jpg", "a.png.dcm", "b"]
