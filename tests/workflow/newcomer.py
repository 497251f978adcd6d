"""A fresh clone in which the workflow has run once, and the files that the pages speak of: what a reader of them has."""

import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import yaml

from d2rnet.config import Config
from d2rnet.files.documents import read_json, write_json
from d2rnet.files.hashes import sha256_file
from d2rnet.settings import merge, read_overlay

sys.path.append(str(Path(__file__).resolve().parents[1] / "report"))  # which pytest does only when it collects that folder
from r2gen_reference import random_weights

LINKED = ("docs", "envs", "profiles", "src", "workflow")
HOSPITAL = "/data/hospital"  # in docs/how-to/own-hospital.md


def make_clone(folder: Path, repository: Path, run: Path, page: str) -> None:
    """Fill a folder with the project, a finished run of it, and samples of what a reader would bring.

    Args:
        folder: does not exist yet.
        repository: root of this checkout.
        run: working directory of a finished tiny run.
        page: text of the page that is followed; files that it shows are written.
    """
    shutil.copytree(run, folder, symlinks=True)
    shutil.copy(repository / "Snakefile", folder)
    for name in LINKED:
        (folder / name).symlink_to(repository / name)
    config = Config.read(read_overlay(repository / "workflow/presets/cxr/tiny.yaml")).to_json()
    _write_yaml(folder / "config.yaml", config)
    _radiographs(folder)
    _other_runs(folder)
    for name in ("model.pth", "r2gen.pth"):
        torch.save({"state_dict": random_weights(d_model=16, num_words=11, patch_width=2048)}, folder / name)
    for name, rule in (("detector", "train_detector"), ("report_model", "train_report_model")):
        shutil.copytree(folder / "results/cxr" / rule, folder / name)
    (folder / "SHA256SUMS.txt").write_text(f"{sha256_file(folder / 'chest.dcm')}  chest.dcm\n")
    _hospital(folder, page)
    _write_yaml(folder / "my_paths.yaml", _real_layout(config, folder / "resources/cxr/demo_cohort"))
    for name, content in re.findall(r"^```yaml\n# ([\w.]+\.yaml)\b[^\n]*\n(.*?)^```", page, flags=re.MULTILINE | re.DOTALL):
        if not (folder / name).exists():
            (folder / name).write_text(content.replace(HOSPITAL, str(folder / "hospital")), encoding="utf-8")


def _write_yaml(path: Path, content: Any) -> None:
    path.write_text(yaml.safe_dump(content), encoding="utf-8")


def _radiographs(folder: Path) -> None:
    dicoms = sorted((folder / "resources/cxr/demo_cohort/vindr/test").iterdir())
    for source, name in zip(dicoms, ("chest.dcm", "frontal.dcm", "lateral.dcm", "scans/1.dcm", "scans/2.dcm"), strict=False):
        (folder / name).parent.mkdir(exist_ok=True)
        shutil.copy(source, folder / name)
    (folder / "my_boxes.csv").write_text(
        "image,x,y,width,height,class\n1.dcm,20,24,60,90,Emphysema\n2,60,70,30,25,Nodule/Mass\n"
    )
    (folder / "more").mkdir()
    shutil.copy(next((folder / "resources/cxr/labelled/images").glob("*.png")), folder / "more/chest.png")


def _other_runs(folder: Path) -> None:
    for name in ("a", "b", "mine"):
        (folder / "runs" / name).mkdir(parents=True)
        shutil.copytree(folder / "results", folder / "runs" / name / "results")
        (folder / "runs" / name / "resources").symlink_to(folder / "resources")


def _real_layout(config: dict[str, Any], cohort: Path) -> dict[str, Any]:
    """Settings of the tiny run that lie over every preset, with the cohort in the place of the two real releases."""
    data = {
        "demo": {"enabled": False},
        "labelled": {"source": "vindr", "root": str(cohort / "vindr")},
        "reports": {"source": "mimic", "root": str(cohort / "mimic")},
    }
    return merge(config, {"cxr": {"data": data}})


def _hospital(folder: Path, page: str) -> None:
    """Lay out a hospital's data with just the keys that the page's JSON examples have."""
    examples = [*_examples(page)]
    if not examples:
        return
    boxes, reports = examples
    images = folder / "hospital" / "images"
    images.mkdir(parents=True)
    (images / "images").symlink_to(folder / "resources/cxr/labelled/images")
    (images / "files").symlink_to(folder / "resources/cxr/demo_cohort/mimic/files")
    for split in ("train", "val", "test"):
        coco = read_json(folder / f"resources/cxr/labelled/{split}.json")
        write_json(images / f"boxes_{split}.json", {part: _only(coco[part], boxes[part]) for part in boxes})
    annotation = read_json(folder / "results/cxr/build_annotation/annotation.json")
    write_json(folder / "hospital/reports.json", {split: _only(annotation[split], reports["train"]) for split in reports})


def _examples(page: str) -> Iterator[dict[str, Any]]:
    if HOSPITAL in page:
        for text in re.findall(r"^```json\n(.*?)^```", page, flags=re.MULTILINE | re.DOTALL):
            yield yaml.safe_load(text)


def _only(records: list[dict[str, Any]], example: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{key: record[key] for key in example[0]} for record in records]
