"""Real radiographs from box tables to scored reports; skipped where the open samples are absent."""

import pytest
import yaml
from test_dag import snakemake

from d2rnet.cxr.boxes.coco import load_coco
from d2rnet.files.documents import read_json, read_jsonl
from d2rnet.report.annotation_file import load_annotation

pytestmark = [pytest.mark.e2e, pytest.mark.slow]


def test_real_radiographs_go_all_the_way(repository, shared_data, tmp_path):
    (tmp_path / "data").symlink_to(shared_data)
    overlay = tmp_path / "overlay.yaml"
    tables = ["BBox_List_2017.csv", "vindr_style_annotations.csv"]
    short = {"total_iters": 12, "burn_in_iters": 8}
    overlay.write_text(
        yaml.safe_dump(
            {
                "cxr": {
                    "data": {"labelled": {"box_tables": tables}},
                    "detector": {"training": short},
                    "report": {"training": {"epochs": 2}},
                }
            }
        )
    )
    preset = repository / "workflow" / "presets" / "cxr" / "open_data.yaml"
    done = snakemake(repository, tmp_path, "--cores", "2", "--configfile", str(preset), str(overlay))
    assert done.returncode == 0, done.stderr[-6000:]
    boxes = sum(
        len(load_coco(tmp_path / f"resources/cxr/labelled/{split}.json")["annotations"]) for split in ("train", "val", "test")
    )
    assert boxes == 118, "128 boxes of two readers; ten pairs of them are one lesion"
    annotation = load_annotation(tmp_path / "results/cxr/build_annotation/annotation.json")
    assert [len(annotation[split]) for split in ("train", "val", "test")] == [3, 1, 1]
    assert any(len(entry["image_path"]) == 2 for split in annotation.values() for entry in split)
    generated = list(read_jsonl(tmp_path / "results/cxr/generate_reports/test.jsonl"))
    assert [record["id"] for record in generated] == [entry["id"] for entry in annotation["test"]]
    assert read_json(tmp_path / "results/cxr/evaluate_reports/metrics.json")["protocol"]["n"] == 1
    assert not list(shared_data.rglob("*.part*")), "inputs must not be written to"
