"""Shards of a conversion: whole, apart from each other, joined only if they belong together."""

import os
import re
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import pytest
from conversion_samples import convert_shards, write_list

from d2rnet.cxr.conversion.checked_tables import unlabelled_file_name
from d2rnet.cxr.conversion.image_shards import convert_images_shard, join_shards
from d2rnet.cxr.conversion.settings import ConversionSettings, ImageConversionSettings
from d2rnet.errors import ConfigError, DatasetError
from d2rnet.files.documents import read_json, read_jsonl, write_jsonl

CONVERSION = ImageConversionSettings(max_side_px=64)


@pytest.fixture
def jobs(tmp_path: Path) -> dict[str, str]:
    """Ten radiographs of different height -> their PNGs."""
    made = {}
    for number in range(10):
        source = tmp_path / "in" / f"{number}.png"
        source.parent.mkdir(exist_ok=True)
        assert cv2.imwrite(str(source), np.full((128 + number, 64), 20 * number, np.uint8))
        made[str(source)] = f"images/{number}.png"
    return made


def join(records: list[Path], jobs: dict[str, str], tmp_path: Path, max_bad_fraction: float = 0.2, quarantined: int = 0):
    wanted = pd.DataFrame({"source": list(jobs.keys()), "file_name": list(jobs.values())})
    settings = ConversionSettings(max_side_px=64, max_bad_fraction=max_bad_fraction)
    return join_shards(records, wanted, settings, quarantined=quarantined)


def test_a_shard_is_a_run_of_the_list(jobs: dict[str, str], tmp_path: Path) -> None:
    records = convert_shards(jobs, tmp_path / "out", CONVERSION, shards=3)
    lines = [list(read_jsonl(path)) for path in records]
    assert [len(shard) for shard in lines] == [3, 3, 4]
    assert [line["file_name"] for shard in lines for line in shard] == list(jobs.values())
    assert lines[0][1] == {
        "source": list(jobs)[1], "file_name": "images/1.png", "height": 64, "width": 32, "source_height": 129,
        "source_width": 64, "reason": None,
    }  # fmt: skip
    run = read_json(records[1].with_suffix(".run.json"))
    assert run["counts"] == {"images": 3, "unreadable": 0, "listed": 10, "shard": 2, "shards": 3}


def test_results_follow_the_tables_not_the_shards(jobs: dict[str, str], tmp_path: Path) -> None:
    records = convert_shards(jobs, tmp_path / "out", CONVERSION, shards=4)
    backwards = dict(reversed(jobs.items()))
    sizes, readable = join(records[::-1], backwards, tmp_path)
    assert sizes["source_height"].tolist() == list(range(137, 127, -1))
    assert readable.tolist() == [True] * 10


def test_a_lost_shard_is_made_alone_and_one_that_was_killed_goes_on(jobs: dict[str, str], tmp_path: Path) -> None:
    records = convert_shards(jobs, tmp_path / "out", CONVERSION, shards=2)
    before = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out" / "images").iterdir()}
    kept = records[0].read_bytes()
    records[1].unlink()  # as Snakemake does with the output of a failed job
    (tmp_path / "out" / "images" / "7.png").unlink()
    convert_images_shard(
        images=tmp_path / "out_shards" / "images.jsonl", folder=tmp_path / "out", shard=2, shards=2, output=records[1],
        workers=1, settings=CONVERSION,
    )  # fmt: skip
    after = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out" / "images").iterdir()}
    assert {name for name in after if after[name] != before[name]} == {"7.png"}
    assert records[0].read_bytes() == kept
    assert len(join(records, jobs, tmp_path)[0]) == 10


def test_another_number_of_shards_converts_nothing_again(jobs: dict[str, str], tmp_path: Path) -> None:
    convert_shards(jobs, tmp_path / "out", CONVERSION, shards=2)
    before = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out" / "images").iterdir()}
    records = convert_shards(jobs, tmp_path / "out", CONVERSION, shards=5)
    assert {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out" / "images").iterdir()} == before
    assert len(join(records, jobs, tmp_path)[0]) == 10


def test_a_shard_leaves_the_unfinished_files_of_another_alone(jobs: dict[str, str], tmp_path: Path) -> None:
    folder = tmp_path / "out" / "images"
    folder.mkdir(parents=True)
    for name in (".0.abc_1234.part.png", ".7.abc_1234.part.png"):
        (folder / name).write_bytes(b"half")
    convert_shards(dict(list(jobs.items())[:5]), tmp_path / "out", CONVERSION, shards=1)
    assert [path.name for path in folder.glob(".*")] == [".7.abc_1234.part.png"]


def test_unreadable_images_are_limited_over_the_whole_list(jobs: dict[str, str], tmp_path: Path) -> None:
    for source in list(jobs)[:2]:
        Path(source).write_bytes(b"")
    records = convert_shards(jobs, tmp_path / "out", CONVERSION, shards=5)  # the first shard holds nothing else
    sizes, readable = join(records, jobs, tmp_path)
    assert readable.tolist() == [False] * 2 + [True] * 8
    assert (sizes[~readable] == 0).all(axis=None)
    with pytest.raises(DatasetError, match=r"2 of 10 images are unreadable; expected at most 10\.00%"):
        join(records, jobs, tmp_path, max_bad_fraction=0.1)
    Path(list(jobs)[2]).write_bytes(b"")
    records = convert_shards(jobs, tmp_path / "out", CONVERSION, shards=1)
    with pytest.raises(DatasetError, match=r"3 of 10 images are unreadable; expected at most 20\.00%") as caught:
        join(records, jobs, tmp_path)
    assert str(caught.value).count("got an empty file") == 3
    assert (tmp_path / "out" / "images" / "9.png").exists()


def test_what_the_check_set_aside_is_of_the_same_budget(jobs: dict[str, str], tmp_path: Path) -> None:
    Path(next(iter(jobs))).write_bytes(b"")
    records = convert_shards(jobs, tmp_path / "out", CONVERSION)
    assert join(records, jobs, tmp_path, max_bad_fraction=2 / 11, quarantined=1)[1].sum() == 9
    with pytest.raises(DatasetError, match=r"2 of 11 images are unreadable \(1 of them by the check\); expected at most 15\."):
        join(records, jobs, tmp_path, max_bad_fraction=0.15, quarantined=1)


def test_the_first_ten_unreadable_images_are_listed(tmp_path: Path) -> None:
    jobs = {str(tmp_path / f"{number}.dcm"): f"images/{number}.png" for number in range(30)}
    with pytest.raises(DatasetError, match="30 of 30 images") as caught:
        join(convert_shards(jobs, tmp_path / "out", CONVERSION), jobs, tmp_path, max_bad_fraction=0.4)
    assert str(caught.value).count("no such file") == 10
    assert not join(convert_shards(jobs, tmp_path / "out", CONVERSION), jobs, tmp_path, max_bad_fraction=1.0)[1].any()


def test_shards_that_do_not_belong_together_are_refused(jobs: dict[str, str], tmp_path: Path) -> None:
    records = convert_shards(jobs, tmp_path / "out", CONVERSION, shards=2)
    with pytest.raises(DatasetError, match="got shards 1 of 2; expected 1 to 2 of 2"):
        join(records[:1], jobs, tmp_path)
    more = {**jobs, "11.png": "images/11.png"}
    lost = r"1 of 11 images are in none of 2 shard\(s\), the first 11\.png, and 0 in the shards are not in the tables"
    with pytest.raises(DatasetError, match=lost):
        join(records, more, tmp_path)
    fewer = dict(list(jobs.items())[1:])
    with pytest.raises(DatasetError, match=r"0 of 9 images are in none of 2 .*, and 1 in the shards are not in the tables"):
        join(records, fewer, tmp_path)
    with pytest.raises(DatasetError, match=re.escape("3-of-3.jsonl: its run record 3-of-3.run.json is not beside it")):
        join([*records, tmp_path / "3-of-3.jsonl"], jobs, tmp_path)
    small = convert_shards(jobs, tmp_path / "small", CONVERSION.replaced(max_side_px=100), shards=2)
    with pytest.raises(DatasetError, match=r"2-of-2\.jsonl: made with other settings than"):
        join([records[0], small[1]], jobs, tmp_path)
    lines = records[0].read_text().splitlines(keepends=True)
    records[0].write_text("".join(lines[:-1]))
    with pytest.raises(DatasetError, match=r"1-of-2\.jsonl: holds 4 images, its run record says 5"):
        join(records, jobs, tmp_path)
    records[0].write_text("".join(lines))
    records[1].write_text("".join(lines))
    with pytest.raises(DatasetError, match=r"2-of-2\.jsonl: holds 0 images, its run record says 5"):
        join(records, jobs, tmp_path)


@pytest.mark.parametrize(
    "change",
    [
        {"source": 3}, {"source": "a\0b"}, {"file_name": ["a.png"]}, {"file_name": "../a.png"}, {"file_name": "x" * 300},
        {"height": "20"}, {"height": None}, {"width": -3}, {"source_width": 1e300}, {"height": True}, {"reason": 3},
        {"reason": "damaged"}, {"height": 0},
    ],
    ids=str,
)  # fmt: skip
def test_a_line_that_is_no_record_of_an_image_is_refused(jobs: dict[str, str], tmp_path: Path, change: dict[str, Any]) -> None:
    (record,) = convert_shards(jobs, tmp_path / "out", CONVERSION, shards=1)
    first, *others = read_jsonl(record)
    write_jsonl(record, [first | change, *others])
    with pytest.raises(DatasetError, match=r"1-of-1\.jsonl: (a line has source|image '.*0\.png': got sizes)"):
        join([record], jobs, tmp_path)


@pytest.mark.parametrize(
    "file_name", ["../../stranger.png", "/stranger.png", "images/../../x.png", 3, None, "a\0b.png", "x" * 300 + ".png"]
)
def test_no_png_is_written_outside_the_folder(tmp_path: Path, file_name: Any) -> None:
    assert cv2.imwrite(str(tmp_path / "a.png"), np.zeros((20, 20), np.uint8))
    write_jsonl(tmp_path / "images.jsonl", [{"source": str(tmp_path / "a.png"), "file_name": file_name}])
    with pytest.raises(DatasetError, match=r"images\.jsonl: a line has source .* expected two paths, the second below"):
        convert_images_shard(
            images=tmp_path / "images.jsonl", folder=tmp_path / "deep" / "out", shard=1, shards=1, workers=1,
            output=tmp_path / "1-of-1.jsonl", settings=CONVERSION,
        )  # fmt: skip
    assert {path.name for path in tmp_path.rglob("*.png")} == {"a.png"}


@pytest.mark.parametrize("source", ["x" * 5_000, "loop", "pipe"])
def test_a_source_that_is_no_file_is_set_aside(tmp_path: Path, source: str) -> None:
    (tmp_path / "loop").symlink_to("loop")
    os.mkfifo(tmp_path / "pipe")
    (record,) = convert_shards({str(tmp_path / source): "images/a.png"}, tmp_path / "out", CONVERSION, shards=1)
    assert [line["reason"].split(";")[0].split("got ")[1] for line in read_jsonl(record)] == [
        {"l": "a link that leads to itself", "p": "a pipe, socket or device"}.get(
            source[0], "a name longer than a file system takes"
        )
    ]


@pytest.mark.parametrize("shard", [0, 3])
def test_no_such_shard(jobs: dict[str, str], tmp_path: Path, shard: int) -> None:
    write_list(tmp_path / "images.jsonl", jobs)
    with pytest.raises(ConfigError, match=f"--shard {shard} --shards 2: expected a shard from 1 to 2"):
        convert_images_shard(
            images=tmp_path / "images.jsonl", folder=tmp_path, shard=shard, shards=2, output=tmp_path / "x.jsonl", workers=1,
            settings=CONVERSION,
        )  # fmt: skip


def test_images_are_spread_over_folders_by_their_id() -> None:
    assert unlabelled_file_name("img-1a") == "unlabelled_images/70/img-1a.png"


def test_pngs_of_another_size_than_the_setting_are_not_joined(jobs: dict[str, str], tmp_path: Path) -> None:
    """Resources copied from a run with another cxr.data.conversion.max_side_px: every shard agrees with the others."""
    records = convert_shards(jobs, tmp_path / "out", ImageConversionSettings(max_side_px=128))
    with pytest.raises(DatasetError, match=r"1-of-2\.jsonl: made with .*: cxr\.data\.conversion\.max_side_px 128, not 64 \("):
        join(records, jobs, tmp_path)
