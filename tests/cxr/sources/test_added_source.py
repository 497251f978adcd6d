"""Three files add a labelled source, as docs/how-to/add-a-labelled-source.md says: in a copy, which verifies and converts."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from d2rnet.cxr.boxes.coco import load_coco
from d2rnet.files.documents import read_json
from d2rnet.findings.classes import CATEGORY_IDS


@pytest.fixture(scope="module")
def grown(tmp_path_factory: pytest.TempPathFactory, repository: Path) -> Path:
    """A copy of the package with one source more, added by the blocks of the page that says how."""
    copy = tmp_path_factory.mktemp("copy")
    shutil.copytree(repository / "src", copy / "src", ignore=shutil.ignore_patterns("__pycache__"))
    page = (repository / "docs" / "how-to" / "add-a-labelled-source.md").read_text(encoding="utf-8")
    module, test, line = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    sources = copy / "src" / "d2rnet" / "cxr" / "sources"
    (sources / "ward.py").write_text(module)
    (copy / "test_ward.py").write_text(test)
    registry = (sources / "registry.py").read_text(encoding="utf-8")
    changed, replaced = re.subn(r"LabelledName = .*\n", line, registry)
    assert replaced == 1 and line == re.search(r"LabelledName = .*\n", registry)[0].replace("]", ', "ward"]')  # type: ignore[index]
    (sources / "registry.py").write_text(changed)
    return copy


def run_in(copy: Path, *arguments: object) -> str:
    done = subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=copy,
        env=os.environ | {"PYTHONPATH": str(copy / "src")},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_example_of_the_page_passes_its_own_test(grown: Path) -> None:
    run_in(grown, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_ward.py")


def write_sources(folder: Path) -> dict[str, Any]:
    """Write ten images of the ward and three of a report source; return the section cxr.data."""
    rows = ["image_id,class_name,x_min,y_min,x_max,y_max"]
    entries: dict[str, list[dict[str, Any]]] = {}
    for number in range(10):
        rows.append(f"w{number},{'PTX,10,20,30,60' if number % 2 else 'No finding,,,,'}")
        draw(folder / "ward" / "images" / f"w{number}.png", number)
    (folder / "ward" / "boxes.csv").write_text("\n".join(rows) + "\n")
    for number, split in enumerate(("train", "val", "test")):
        draw(folder / "reports" / f"{split}.png", 50 + number)
        entries[split] = [{"id": split, "report": "Clear.", "image_path": [f"{split}.png"]}]
    (folder / "reports" / "annotation.json").write_text(json.dumps(entries))
    return {
        "labelled": {"source": "ward", "root": str(folder / "ward")},
        "reports": {"source": "r2gen", "root": str(folder / "reports"), "views": []},
        "conversion": {"max_side_px": 64},
    }


def draw(path: Path, shade: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.full((128, 100), shade, np.uint8)
    pixels[30:60, 20:50] += 20  # one grey level is no radiograph
    assert cv2.imwrite(str(path), pixels)


def test_an_added_source_is_verified_and_converted(grown: Path, tmp_path: Path) -> None:
    settings = write_sources(tmp_path)
    checked, output, shard = tmp_path / "checked", tmp_path / "labelled", tmp_path / "shard.jsonl"
    run_in(grown, "-m", "d2rnet", "verify-inputs", "--output", checked, "--settings", json.dumps(settings))
    summary = read_json(checked / "summary.json")["labelled"]
    assert (summary["source"], summary["images"], summary["boxes"]["boxes_kept"]) == ("ward", 10, 5)
    assert summary["unlike_the_full_release"] == {"rows_in": "10 of 1200"}
    images = ("--images", checked / "labelled_images.jsonl")
    side = ("--set", "max_side_px=64")
    run_in(grown, "-m", "d2rnet", "convert-images-shard", *images, "--folder", output, "--output", shard, *side)
    tables = (*images, "--boxes", checked / "labelled_boxes.jsonl", "--counts", checked / "counts.json")
    del settings["reports"]
    given = ("--shards", shard, "--output", output, "--settings", json.dumps(settings))
    run_in(grown, "-m", "d2rnet", "convert-labelled", *tables, *given)
    sets = [load_coco(output / f"{split}.json") for split in ("train", "val", "test")]
    assert [len(content["images"]) for content in sets] == [7, 1, 2]
    boxes = [record for content in sets for record in content["annotations"]]
    assert [record["bbox"] for record in boxes] == [[5.0, 10.0, 10.0, 20.0]] * 5
    assert {record["category_id"] for record in boxes} == {CATEGORY_IDS["Pneumothorax"]}
    assert "`ward`. Terms: research of the ward alone." in (output / "data_card.md").read_text(encoding="utf-8")


def test_an_added_source_may_be_configured(grown: Path) -> None:
    code = "from d2rnet.config import Config; print(Config.model_json_schema()['$defs']['LabelledSettings']['properties'])"
    assert "'enum': ['vindr', 'vinbigdata', 'nih', 'coco', 'ward']" in run_in(grown, "-c", code)
