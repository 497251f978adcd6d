"""Part of the tiny workflow through ``--profile profiles/slurm`` on four nodes: shards, GPUs, and what each job asks for."""

import itertools
import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from slurm_cluster import ACCOUNT, GPU_MODEL, NODES, Job
from slurm_runs import said, write_overlay

from d2rnet.data.coco import load_coco
from d2rnet.io import read_json, read_jsonl

pytestmark = pytest.mark.e2e
CONVERSION_SHARDS, PREDICTION_SHARDS = 4, 2
TARGETS = ("convert_labelled", "predict_boxes")
JOBS = {
    "convert_images_shard": 2 * CONVERSION_SHARDS, "convert_labelled": 1, "convert_unlabelled": 1, "train_detector": 1,
    "predict_boxes_shard": PREDICTION_SHARDS, "predict_boxes": 1,
}  # fmt: skip


@pytest.fixture(scope="module")
def jobs(cluster, locally, start, run: Path) -> list[Job]:
    """The jobs of the run, which has ended well."""
    before = {job.number for job in cluster.jobs()}
    process = start(run, 1800, *TARGETS)
    assert process.wait() == 0, said(run)
    return [job for job in cluster.jobs() if job.number not in before]


@pytest.fixture(scope="module")
def run(locally, tmp_path_factory) -> Path:
    """Working directory of the run; what comes before the conversion is made without the cluster."""
    directory = tmp_path_factory.mktemp("slurm run")  # a space in the path: every command must quote
    write_overlay(directory, {"conversion_shards": CONVERSION_SHARDS, "prediction_shards": PREDICTION_SHARDS})
    locally(directory, "verify_inputs")
    return directory


def test_every_job_ran_once_and_the_shards_were_spread(jobs):
    counts = {rule: sum(job.rule == rule for job in jobs) for rule in JOBS}
    assert counts == JOBS
    assert {job.state for job in jobs} == {"COMPLETED"}
    assert {job.node for job in jobs if job.rule == "convert_images_shard"} == set(NODES)


def test_two_gpu_jobs_overlap_on_one_node_and_see_different_gpus(cluster, jobs):
    shards = [job for job in jobs if job.rule == "predict_boxes_shard"]
    seen = {task.job: task.gpus for task in cluster.tasks() if task.step == "0"}
    assert {job.node for job in shards} == {"n3"}
    assert any(a.start < b.end and b.start < a.end for a, b in itertools.combinations(shards, 2))
    assert sorted(seen[job.number] for job in shards) == ["0", "1"]
    assert {seen[job.number] for job in jobs if job.rule.startswith("convert")} == {"-"}


def test_every_submission_asks_for_what_profile_and_rule_say(repository, cluster, run, jobs):
    profile = yaml.safe_load((repository / "profiles" / "slurm" / "config.yaml").read_text())
    submitted = cluster.submissions(run)
    assert len(submitted) == len(jobs)
    for words in submitted:
        rule = option(words, "--comment").removeprefix("rule_").partition("_wildcards_")[0]
        asked = profile["set-resources"].get(rule, {})
        assert option(words, "-A") == ACCOUNT == profile["default-resources"]["slurm_account"]
        assert option(words, "-p") == asked.get("slurm_partition", profile["default-resources"]["slurm_partition"])
        assert option(words, "--mem") == first_attempt(asked.get("mem_mb", in_rule(repository, rule, "mem_mb")))
        assert option(words, "-t") == str(asked.get("runtime", in_rule(repository, rule, "runtime")))
        assert ("--gpus=" + f"{GPU_MODEL}:1" in words) == ("gpu_model" in asked)
        assert {"--cpus-per-task=1", "--requeue", "--signal=TERM@300"} <= set(words)


def option(words: list[str], name: str) -> str:
    """The value after an option of sbatch."""
    return words[words.index(name) + 1]


def first_attempt(value: Any) -> str:
    """Memory at the first attempt of ``attempt * 64000`` or ``growing(4000)``."""
    return re.sub(r"^attempt \* |^growing\(|\)$", "", str(value))


def in_rule(repository: Path, rule: str, name: str) -> str:
    """A resource as the text of a rule has it."""
    texts = "\n".join(path.read_text() for path in (repository / "workflow" / "rules").glob("*.smk"))
    block = re.split(rf"^rule {rule}:", texts, flags=re.MULTILINE)[1].split("\nrule ")[0]
    return re.search(rf"^        {name}=(.*),$", block, flags=re.MULTILINE)[1]


def test_shards_hold_every_image_once(run, jobs):
    for part, names in (("labelled", ("labelled/train", "labelled/val", "labelled/test")), ("unlabelled", ("unlabelled",))):
        records = [list(read_jsonl(path)) for path in sorted((run / "resources/convert_images" / part).glob("*-of-4.jsonl"))]
        images = [image for name in names for image in load_coco(run / "resources" / f"{name}.json")["images"]]
        assert len(records) == CONVERSION_SHARDS and all(records)
        converted = sorted(record["file_name"] for shard in records for record in shard)
        assert converted == sorted(image["file_name"] for image in images)
    ids = {image["id"] for image in load_coco(run / "resources/unlabelled.json")["images"]}
    assert {box["image_id"] for box in json.loads((run / "results/predict_boxes/predictions.json").read_text())} <= ids
    assert read_json(run / "results/predict_boxes/run.json")["counts"]["images"] == len(ids)
