"""What is on the screen when a run ends badly: the reason, last."""

import json
import os
import subprocess
from pathlib import Path

import pytest
from warm_snakemake import warm_snakemake

TINY = "workflow/presets/cxr/tiny.yaml"


def snakemake(repository: Path, directory: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run Snakemake with everything it prints in ``stdout``, in the order of the screen."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"} | variables
    words = ("-s", repository / "Snakefile", "-d", directory, *arguments)
    return warm_snakemake(*words, environment=environment, one_stream=True)


@pytest.mark.parametrize("screen", [(), ("--logger", "d2rnet")], ids=["Snakemake's", "ours"])
def test_the_reason_of_a_failed_job_is_the_last_thing_on_the_screen(repository, tmp_path, screen):
    overlay = tmp_path / "mine.yaml"
    roots = {"labelled": {"root": "/nowhere"}, "reports": {"root": "/nowhere"}}
    overlay.write_text(json.dumps({"cxr": {"data": {"demo": {"enabled": False}, **roots}}}))
    run = tmp_path / "a run"
    words = ("verify_inputs", *screen, "--cores", "1", "--configfile", str(repository / TINY), str(overlay))
    done = snakemake(repository, run, *words)
    assert done.returncode == 1
    last = done.stdout.rpartition("At least one job did not complete successfully.\n\n")[2].splitlines()
    assert last[0] == "verify_inputs failed:" and last[1].startswith("  verify-inputs: ")
    assert any("/nowhere/train: cxr.data.labelled.root: got no such file" in line for line in last)
    assert last[-2] == f"  log: {run}/logs/cxr/verify_inputs.log"
    assert last[-1].startswith("what to do: ") and last[-1].endswith(f"d2rnet doctor --run '{run}'")


@pytest.mark.parametrize(
    ("overlay", "reason"),
    [
        ({"cxr": {"annotation": {"max_box": 3}}}, "cxr.annotation.max_box: unknown key; did you mean 'max_boxes'?"),
        ({"cxr": {"ablation": {"design": "gone.yaml"}}}, "gone.yaml"),
    ],
    ids=["setting", "design"],
)
def test_the_reason_of_a_failure_inside_the_snakefile_too(repository, tmp_path, overlay, reason):
    path = tmp_path / "mine.yaml"
    path.write_text(json.dumps(overlay))
    done = snakemake(repository, tmp_path, "-n", "--configfile", str(path))
    assert done.returncode == 1
    assert reason in done.stdout.splitlines()[-1] and ' File "' not in done.stdout


@pytest.mark.parametrize(
    ("target", "model", "reason"),
    [
        ("train_report_model", {"backbone_width": 32}, "cxr.report: model.backbone_weights is 'detector'"),
        ("ablation", {"backbone_width": 32, "backbone_weights": None}, "arm detector: model.backbone_weights is 'detector'"),
    ],
)
def test_a_report_model_that_cannot_start_from_its_detector_ends_the_run_before_it_is_trained(
    repository, tmp_path, target, model, reason
):
    overlay = tmp_path / "mine.yaml"
    overlay.write_text(json.dumps({"cxr": {"report": {"model": model}}}))
    configuration = ("--cores", "1", "--configfile", str(repository / TINY), str(overlay))
    done = snakemake(repository, tmp_path / "run", target, *configuration)
    assert done.returncode == 1 and not (tmp_path / "run" / "resources").exists()
    assert reason in done.stdout and "expected model.backbone_width 16" in done.stdout and ' File "' not in done.stdout


def test_what_would_end_a_training_ends_the_run_before_its_first_job(repository, tmp_path):
    overlay = tmp_path / "mine.yaml"
    overlay.write_text(json.dumps({"cxr": {"detector": {"model": {"weights": "/gone.pkl"}}}, "runtime": {"gpus": 64}}))
    configuration = ("--cores", "1", "--configfile", str(repository / TINY), str(overlay))
    done = snakemake(repository, tmp_path / "run", "verify_inputs", *configuration)
    assert done.returncode == 1 and not (tmp_path / "run" / "resources").exists()
    told = done.stdout.partition("problem(s) that would end a training\n")[2]
    assert "  cxr.detector.training.labelled_batch: 4 images are not divisible by 64" in told
    assert "  cxr.detector.model.weights: /gone.pkl: no such weight file" in told
    assert "device 'cuda'" not in done.stdout, "no training is planned here"
    assert snakemake(repository, tmp_path / "run", "make_demo_cohort", *configuration).returncode == 0


def test_trainings_of_a_wing_are_tried_for_its_own_rules_alone(repository, tmp_path):
    overlay = tmp_path / "mine.yaml"
    wrong = {
        "cxr": {"detector": {"model": {"weights": "/gone.pkl"}}},
        "ct": {"report": {"features": {"most_per_structure": 2}}},
    }
    overlay.write_text(json.dumps(wrong))
    done = snakemake(repository, tmp_path / "run", "verify_ct_inputs", "--cores", "1", "--configfile", str(overlay))
    assert done.returncode == 1 and not (tmp_path / "run" / "resources").exists()
    told = done.stdout.partition("problem(s) that would end a training\n")[2]
    assert "  ct.report.model.patches_per_structure: 4; the features hold 2" in told and "gone.pkl" not in done.stdout


def test_a_gpu_that_is_not_there_ends_a_run_that_would_train(repository, tmp_path):
    overlay = tmp_path / "mine.yaml"
    overlay.write_text(json.dumps({"runtime": {"gpus": 1}}))
    environment = {"CUDA_VISIBLE_DEVICES": ""}
    done = snakemake(repository, tmp_path, "train_detector", "--cores", "1", "--configfile", str(overlay), **environment)
    assert done.returncode == 1 and not (tmp_path / "resources").exists()
    assert done.stdout.splitlines()[-1].startswith("  device 'cuda': this job shows torch 0 GPU(s): torch ")
