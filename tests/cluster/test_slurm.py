"""Parts of the tiny workflow through ``--profile profiles/slurm`` on four nodes: shards, GPUs, and what each job asks for.

Two runs at once, begun from the finished one of this machine: one converts the labelled images in a shard for each node, the
other predicts in two. The whole workflow, with the trainings: test_slurm_faults.py.
"""

import itertools
import subprocess
from pathlib import Path

import pytest
from slurm_cluster import NODES, Cluster, Job, wait_until
from slurm_runs import QUICK, assert_submitted_as_configured, copy_state, said, start, write_overlay

from d2rnet.cxr.boxes.coco import load_coco
from d2rnet.files.documents import read_json, read_jsonl

pytestmark = pytest.mark.e2e
SECONDS = 1800
CONVERSION_SHARDS, PREDICTION_SHARDS = len(NODES), 2
JOBS = {
    "conversion": {"convert_images_shard": CONVERSION_SHARDS, "convert_labelled": 1},
    "prediction": {"predict_boxes_shard": PREDICTION_SHARDS, "predict_boxes": 1},
}
RUNTIME = {"conversion": {"conversion_shards": CONVERSION_SHARDS}, "prediction": {"prediction_shards": PREDICTION_SHARDS}}
BEGUN_FROM = {
    "conversion": ("resources/cxr/demo_cohort", "resources/cxr/verify_inputs"),
    "prediction": ("resources", "results/cxr/train_detector"),
}
TARGETS = {"conversion": "convert_labelled", "prediction": "predict_boxes"}


@pytest.fixture(scope="module")
def folders(cluster: Cluster, run: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Working directories of the two runs, which have ended well."""
    folders = {name: tmp_path_factory.mktemp(f"slurm {name}") for name in JOBS}  # a space: every command must quote

    def begin(name: str) -> subprocess.Popen[str]:
        write_overlay(folders[name], RUNTIME[name])
        copy_state(run, folders[name], *BEGUN_FROM[name])
        return start(cluster, folders[name], SECONDS, *QUICK, TARGETS[name])

    def conversion_is_submitted() -> bool:
        return conversion.poll() is not None or len(cluster.jobs(folders["conversion"])) >= CONVERSION_SHARDS

    conversion = begin("conversion")
    wait_until(conversion_is_submitted, "the shards of the conversion", SECONDS)  # while the nodes are empty: each gets one
    prediction = begin("prediction")
    for name, process in {"conversion": conversion, "prediction": prediction}.items():
        assert process.wait() == 0, said(folders[name])
    return folders


@pytest.fixture(scope="module")
def jobs(cluster: Cluster, folders: dict[str, Path]) -> dict[str, list[Job]]:
    """The jobs of each run."""
    return {name: [job for job in cluster.jobs() if job.folder == folder] for name, folder in folders.items()}


@pytest.mark.parametrize("name", JOBS)
def test_every_job_ran_once_as_profile_and_rule_say(cluster, folders, jobs, name):
    assert {rule: sum(job.rule == rule for job in jobs[name]) for rule in JOBS[name]} == JOBS[name]
    assert {job.state for job in jobs[name]} == {"COMPLETED"}
    assert_submitted_as_configured(cluster, folders[name], jobs[name])


def test_shards_run_on_every_node(jobs):
    assert {job.node for job in jobs["conversion"] if job.rule == "convert_images_shard"} == set(NODES)


def test_two_gpu_jobs_overlap_on_one_node_and_see_different_gpus(cluster, jobs):
    shards = [job for job in jobs["prediction"] if job.rule == "predict_boxes_shard"]
    seen = {task.job: task.gpus for task in cluster.tasks() if task.step == "0"}
    assert {job.node for job in shards} == {"n3"}
    assert any(a.start < b.end and b.start < a.end for a, b in itertools.combinations(shards, 2))
    assert sorted(seen[job.number] for job in shards) == ["0", "1"]
    assert {seen[job.number] for job in jobs["conversion"]} == {"-"}


def test_shards_hold_every_image_once(folders, run):
    folder = folders["conversion"]
    records = [
        list(read_jsonl(path))
        for path in sorted((folder / "resources/cxr/convert_images/labelled").glob(f"*-of-{CONVERSION_SHARDS}.jsonl"))
    ]
    assert len(records) == CONVERSION_SHARDS and all(records)
    images = [
        image
        for name in ("train", "val", "test")
        for image in load_coco(folder / f"resources/cxr/labelled/{name}.json")["images"]
    ]
    assert sorted(record["file_name"] for shard in records for record in shard) == sorted(
        image["file_name"] for image in images
    )
    for name in ("train", "val", "test"):
        path = f"resources/cxr/labelled/{name}.json"
        assert (folder / path).read_bytes() == (run / path).read_bytes(), "all shards together equal one"


def test_prediction_shards_hold_every_image(folders, run):
    folder = folders["prediction"]
    ids = {image["id"] for image in load_coco(run / "resources/cxr/unlabelled.json")["images"]}
    assert {box["image_id"] for box in read_json(folder / "results/cxr/predict_boxes/predictions.json")} <= ids
    assert read_json(folder / "results/cxr/predict_boxes/run.json")["counts"]["images"] == len(ids)
