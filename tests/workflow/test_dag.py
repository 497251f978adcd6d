"""The DAG: style, targets by name, and what a changed setting runs again. Plans only; nothing is computed."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from report_items import report_items
from warm_snakemake import warm_snakemake

from d2rnet.config import RuntimeSettings
from d2rnet.ct.structures import table as structure_tables
from d2rnet.files.documents import read_json
from d2rnet.reading.ct_settings import describe_ct_reading
from d2rnet.reading.cxr_settings import describe_reading

RULES = (
    "make_demo_cohort",
    "verify_inputs",
    "convert_labelled",
    "convert_unlabelled",
    "train_detector",
    "evaluate_detector",
    "predict_boxes",
    "calibrate_thresholds",
    "fit_thresholds",
    "build_annotation",
    "build_vocabulary",
    "train_report_model",
    "describe_reading",
    "generate_reports",
    "retrieve_reports",
    "evaluate_reports",
    "render_gallery",
    "summarize",
    "draw_figures",
)
AFTER_THRESHOLD = {
    "build_annotation",
    "build_vocabulary",
    "train_report_model",
    "describe_reading",
    "generate_reports_shard",
    "generate_reports",
    "retrieve_reports",
    "evaluate_reports",
    "render_gallery",
    "summarize",
    "draw_figures",
    "cxr",
}


def snakemake(repository: Path, directory: Path, *arguments: str) -> subprocess.CompletedProcess:
    """Run Snakemake on the real Snakefile in a working directory of its own, its environment not activated."""
    places = [place for place in os.environ["PATH"].split(os.pathsep) if Path(place) != Path(sys.executable).parent]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PATH": os.pathsep.join(places)}
    return warm_snakemake("-s", repository / "Snakefile", "-d", directory, *arguments, environment=environment)


def planned_jobs(done: subprocess.CompletedProcess) -> set[str]:
    """Names of the rules that a dry run would run."""
    assert done.returncode == 0, done.stderr + done.stdout
    table = re.search(r"^job +count\n-+ +-+\n(.*?)^total", done.stdout, flags=re.MULTILINE | re.DOTALL)
    return {line.split()[0] for line in table.group(1).splitlines()} if table else set()


def test_lint_is_clean(repository, tmp_path):
    done = snakemake(repository, tmp_path, "--lint")
    assert done.returncode == 0, done.stdout + done.stderr


def test_snakefmt_is_clean(repository):
    done = subprocess.run(
        [Path(sys.executable).parent / "snakefmt", "--check", repository / "Snakefile", repository / "workflow"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


def test_every_rule_is_a_target_and_can_be_forced(repository, tmp_path):
    """All at once: a name that is no target or cannot be forced ends Snakemake with that name."""
    jobs = planned_jobs(snakemake(repository, tmp_path, "-n", "--cores", "1", *RULES, "--forcerun", *RULES))
    assert sorted({*RULES} - jobs) == []


def test_report_models_and_cells_may_start_from_the_detector(repository, tmp_path):
    """Only the cells of an arm that asks for it wait for the detector's folder by that way."""
    start = {"model": {"backbone_weights": "detector"}}
    fresh = {"model": {"backbone_weights": None}}
    arms = {"plain": {"label": "plain", "boxes": "pseudo", "report": fresh}}
    arms["warm"] = {"label": "warm", "boxes": "pseudo", "report": start}
    design = {"reference": "plain", "report": {}, "arms": arms}
    (tmp_path / "arms.yaml").write_text(yaml.safe_dump(design))
    path = tmp_path / "overlay.yaml"
    for report, expected in ((fresh, 1), (start, 2)):
        cxr = {"report": report, "ablation": {"seeds": [1], "design": str(tmp_path / "arms.yaml")}}
        path.write_text(yaml.safe_dump({"cxr": cxr}))
        targets = ("ablation", "train_report_model", "--configfile", str(path))
        done = snakemake(repository, tmp_path, "-n", "-p", "--cores", "1", *targets)
        assert {"train_detector", "train_ablation_cell", "train_report_model"} <= planned_jobs(done)
        assert done.stdout.count(" --detector results/cxr/train_detector/model_final.pth ") == expected


@pytest.mark.parametrize(("candidates", "retrieves"), [(20000, True), (0, False)])
def test_ablation_trains_cells_and_retrieves_only_where_asked_to(repository, tmp_path, candidates, retrieves):
    path = tmp_path / "overlay.yaml"
    own = {"ablation": {"seeds": [1]}, "annotation": {"class_score_thresholds": {"Edema": 0.3}}}
    path.write_text(yaml.safe_dump({"evaluation": {"retrieval_candidates": candidates}, "cxr": own}))
    done = snakemake(repository, tmp_path, "-n", "-p", "--cores", "1", "ablation", "--configfile", str(path))
    jobs = planned_jobs(done)
    assert {"oracle_annotation", "sure_annotation", "train_ablation_cell", "generate_ablation_reports", "ablation"} <= jobs
    [settings] = re.findall(r"--output results/cxr/ablation/sure --settings (\S+)", done.stdout)
    kept = read_json(tmp_path / settings)
    assert (kept["score_threshold"], set(kept["class_score_thresholds"].values())) == (0.5, {0.5}), "no class has its own"
    sure = set(re.findall(r"--annotation (\S+) .*--output results/cxr/ablation/(\w+)_sure/", done.stdout))
    assert sure == {("results/cxr/ablation/sure/annotation.json", name) for name in ("tokens", "recommended")}
    assert ("retrieve_reports" in jobs, "--nearest " in done.stdout) == (retrieves, retrieves)
    trained = done.stdout.count("d2rnet train-report-model ")
    assert trained == done.stdout.count("--image-cache work/cxr/train_report_model/images ") > 20, "images are decoded once"
    seeds = {
        arm: set(re.findall(rf"results/cxr/ablation/{arm}/seed_(\d)", done.stdout))
        for arm in ("base", "tokens", "recommended")
    }
    assert seeds == {"base": {"1"}, "tokens": {"1", "4", "5"}, "recommended": {"1", "4", "5"}}


def test_the_preset_of_inputs_brings_its_arms_into_any_working_directory(repository, tmp_path):
    preset = repository / "workflow" / "presets" / "cxr" / "inputs.yaml"
    done = snakemake(repository, tmp_path, "-n", "-p", "--cores", "1", "ablation", "--configfile", str(preset))
    counts = {rule: int(count) for rule, count in re.findall(r"^(\w+) +(\d+)$", done.stdout, flags=re.MULTILINE)}
    assert counts["train_ablation_cell"] == 9 * 3, done.stderr + done.stdout
    assert "results/cxr/ablation_inputs/indication/seed_1" in done.stdout
    used = re.findall(r"(?:results|work|logs)/cxr/(?:benchmarks/)?ablation/\S+", done.stdout)
    assert used and all("/oracle" in path for path in used), "nothing of the shipped design, which has arms of these names"


def test_ablation_of_ct_trains_what_arms_share_once(repository, tmp_path):
    path = tmp_path / "overlay.yaml"
    arms = ["repaired", "soft", "hard", "all_patches", "random_patches"]
    path.write_text(yaml.safe_dump({"ct": {"ablation": {"seeds": [4, 5], "side_seeds": [4], "arms": arms}}}))
    done = snakemake(repository, tmp_path, "-n", "-p", "--cores", "1", "ct_ablation", "--configfile", str(path))
    counts = {rule: int(count) for rule, count in re.findall(r"^(\w+) +(\d+)$", done.stdout, flags=re.MULTILINE)}
    assert {rule: counts[rule] for rule in counts if "ablation" in rule} == {
        "train_ct_ablation_structures": 4,  # repaired and hard, two seeds each
        "evaluate_ct_ablation_structures": 4,
        "extract_ct_ablation_features_shard": 5,  # and all patches of the repaired one, for both side arms
        "extract_ct_ablation_features": 5,
        "train_ct_ablation_cell": 6,
        "generate_ct_ablation_reports": 6,
        "retrieve_ct_ablation_reports": 1,
        "ct_ablation": 1,
    }
    assert "train_structures" not in counts, "the ablation needs no run of the target ct"
    assert "--features results/ct/ct_ablation/features/all_patches/seed_4 " in done.stdout


def test_masks_of_the_settings_go_before_those_of_the_demo(repository, tmp_path):
    """The command reads them from its settings, as it does in an ablation; the demo's are given on the command line."""
    (tmp_path / "masks").mkdir()
    path = tmp_path / "overlay.yaml"
    for own, given in ((None, True), ("masks", False)):
        path.write_text(yaml.safe_dump({"ct": {"structure_model": {"evaluation": {"masks": own}}}}))
        done = snakemake(repository, tmp_path, "-n", "-p", "--cores", "1", "evaluate_structures", "--configfile", str(path))
        assert done.returncode == 0, done.stderr
        assert ("--masks" in done.stdout) is given


def test_stage_one_alone(repository, tmp_path):
    jobs = planned_jobs(snakemake(repository, tmp_path, "-n", "--cores", "1", "results/cxr/build_annotation/annotation.json"))
    assert "build_annotation" in jobs and not jobs & {"train_report_model", "evaluate_detector", "cxr"}


@pytest.fixture(scope="module")
def finished(repository, tmp_path_factory):
    """A working directory in which every output exists and Snakemake believes that it made them (``--touch``)."""
    directory = tmp_path_factory.mktemp("finished")
    listing = snakemake(repository, directory, "-n", "--cores", "1", "--forceall", "--detailed-summary")
    assert listing.returncode == 0, listing.stderr
    for line in listing.stdout.splitlines()[1:]:
        path = directory / line.split("\t")[0]
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix:
            path.write_text("{}")
        else:
            path.mkdir()
    done = snakemake(repository, directory, "--touch", "--cores", "1", "--forceall")
    assert done.returncode == 0, done.stderr
    return directory


def plan_with(repository, directory, overlay) -> set[str]:
    path = directory / "overlay.yaml"
    path.write_text(yaml.safe_dump(overlay))
    return planned_jobs(snakemake(repository, directory, "-n", "--cores", "1", "--configfile", str(path)))


@pytest.mark.parametrize(
    ("overlay", "expected"),
    [
        ({}, set()),
        ({"cxr": {"annotation": {"score_threshold": 0.31}}}, AFTER_THRESHOLD),
        ({"cxr": {"annotation": {"thresholds": "calibrated"}}}, AFTER_THRESHOLD | {"calibrate_thresholds"}),
        ({"cxr": {"annotation": {"thresholds": "reports"}}}, AFTER_THRESHOLD | {"fit_thresholds"}),
        ({"cxr": {"detector": {"calibration": {"wanted_precision": 0.9}}}}, set()),
        (
            {"cxr": {"detector": {"evaluation": {"bootstrap_seed": 1}}}},
            {"evaluate_detector", "summarize", "draw_figures", "cxr"},
        ),
        ({"evaluation": {"shuffle_seed": 5}}, {"evaluate_reports", "render_gallery", "summarize", "draw_figures", "cxr"}),
        ({"evaluation": {"gallery": {"jpeg_quality": 50}}}, {"render_gallery", "cxr"}),
        ({"runtime": {"threads": 1, "workers": 1}}, set()),
        ({"runtime": {"device": "cuda", "gpus": 2}}, set()),
    ],
    ids=[
        "nothing",
        "threshold",
        "calibrated",
        "of reports",
        "calibration unused",
        "bootstrap_seed",
        "shuffle_seed",
        "gallery",
        "threads",
        "device",
    ],
)
def test_a_changed_setting_runs_what_depends_on_it_and_nothing_before(repository, finished, overlay, expected):
    assert plan_with(repository, finished, overlay) == expected


def other_value(key: str) -> object:
    """A value of a runtime key that is not the one that it ships with."""
    default = getattr(RuntimeSettings(), key)
    if isinstance(default, int | float):
        return default + 10
    return {"device": "cpu", "container": "d2rnet.sif", "delete_after_success": ["stale"]}[key]


@pytest.mark.slow  # test_end_to_end.py changes all of them at once; this one tells which key it was
@pytest.mark.parametrize("key", RuntimeSettings.model_fields)
def test_a_runtime_key_plans_no_job(repository, finished, key):
    assert plan_with(repository, finished, {"runtime": {key: other_value(key)}}) == set()


@pytest.mark.parametrize(
    ("change", "wanted"),
    [
        ({}, "1-of-1"),
        ({"detector": {"evaluation": {"bootstrap_seed": 1}}}, "1-of-1"),
        ({"detector": {"prediction": {"nms_iou": 0.4}}}, "1-of-5"),
    ],
    ids=["nothing else", "what follows", "what decides"],
)
def test_another_number_of_shards_counts_once_a_setting_that_decides_the_result_changes(repository, finished, change, wanted):
    path = finished / "overlay.yaml"
    path.write_text(yaml.safe_dump({"runtime": {"prediction_shards": 5}, "cxr": change}))
    force = ("--forcerun", "predict_boxes_shard", "--configfile", str(path))
    done = snakemake(repository, finished, "-n", "--cores", "1", *force)
    assert f"results/cxr/predict_boxes/shards/{wanted}.jsonl" in done.stdout


def test_another_number_of_shards_plans_no_job_once_the_work_folders_are_gone(repository, finished):
    shutil.rmtree(finished / "work", ignore_errors=True)
    shards = {"conversion_shards": 5, "prediction_shards": 5, "generation_shards": 5}
    assert plan_with(repository, finished, {"runtime": shards}) == set()


@pytest.mark.parametrize("rule", ["train_detector", "train_report_model"])
def test_gpus_of_a_training_rule_are_shared_by_processes_of_one_command(repository, tmp_path, rule):
    path = tmp_path / "overlay.yaml"
    path.write_text("runtime: {gpus: 2}")
    done = snakemake(repository, tmp_path, "-n", "-p", "--cores", "1", rule, "--configfile", str(path))
    assert re.search(rf"d2rnet {rule.replace('_', '-')} .* --processes 2 ", done.stdout), done.stderr


@pytest.mark.parametrize(("device", "given"), [("auto", "cuda"), ("cpu", "cpu"), ("cuda:1", "cuda:1")])
def test_a_job_that_asks_for_a_gpu_does_not_fall_back_on_the_cpu(repository, tmp_path, device, given):
    path = tmp_path / "overlay.yaml"
    path.write_text(f"runtime: {{gpus: 1, device: '{device}'}}")
    done = snakemake(repository, tmp_path, "-n", "-p", "--cores", "1", "--configfile", str(path))
    commands = [line for line in done.stdout.splitlines() if " --device " in line]
    assert len(commands) >= 6 and all(f" --device {given} " in line for line in commands), done.stdout + done.stderr


@pytest.mark.parametrize(("views", "given"), [("[]", ""), ("[PA, AP AXIAL]", "--view PA --view 'AP AXIAL' ")])
def test_the_detector_looks_at_images_that_get_boxes(repository, tmp_path, views, given):
    path = tmp_path / "overlay.yaml"
    path.write_text(f"cxr: {{annotation: {{box_views: {views}}}}}")
    done = snakemake(repository, tmp_path, "-n", "-p", "--cores", "1", "predict_boxes", "--configfile", str(path))
    (command,) = [line for line in done.stdout.splitlines() if "d2rnet predict-boxes-shard " in line]
    assert f" --shard 1 --shards 1 {given}" in command and command.count(" --view ") == given.count("--view ")


def test_misspelled_key_stops_before_anything_runs(repository, tmp_path):
    path = tmp_path / "overlay.yaml"
    path.write_text("cxr: {annotation: {score_treshold: 0.5}}\n")
    done = snakemake(repository, tmp_path, "-n", "--configfile", str(path))
    assert done.returncode != 0
    assert "did you mean 'score_threshold'?" in done.stderr + done.stdout


def test_a_key_given_twice_in_an_overlay_is_refused(repository, tmp_path):
    path = tmp_path / "twice.yaml"
    path.write_text("cxr: {annotation: {max_boxes: 3}}\ncxr: {annotation: {score_threshold: 0.4}}\n")
    done = snakemake(repository, tmp_path, "-n", "--configfile", str(path))
    assert done.returncode != 0
    assert "twice.yaml: not a YAML file that can be used (the key 'cxr' occurs twice" in done.stderr + done.stdout


def test_every_rule_is_complete(repository):
    for path in sorted((repository / "workflow" / "rules").rglob("*.smk")):
        for block in re.split(r"^rule ", path.read_text(), flags=re.MULTILINE)[1:]:
            name = block.split(":", 1)[0]
            for directive in ("message:", "log:", "conda:", "threads:", "resources:", "mem_mb=", "runtime="):
                assert directive in block, f"{path.name}: rule {name} has no {directive}"
            assert f"envs/{name}.yaml" in block, f"{path.name}: rule {name} must use its own env file"
            if "--device" in block:
                assert "gpu=" in block, f"{path.name}: rule {name} computes on a device but asks for no gpu"
                one = "gpu=min(1, " in block
                assert one == ("--processes" not in block), f"{path.name}: rule {name}: one process uses one gpu"


def test_report_captions_exist(repository):
    rules = "\n".join(path.read_text() for path in (repository / "workflow" / "rules").rglob("*.smk"))
    captions = re.findall(r'caption="\.\./\.\./report/([\w./]+)"', rules)
    captions += [
        caption.relative_to(repository / "workflow/report") for wing in ("cxr", "ct") for _, caption in report_items(wing)
    ]
    assert len({*captions}) >= 20 and all((repository / "workflow" / "report" / name).is_file() for name in captions)


@pytest.mark.parametrize(
    "overlay",
    [
        {"cxr": {"detector": {"model": {"weights": "gone.pkl"}}}},
        {"cxr": {"report": {"model": {"backbone_weights": "gone.pkl"}}}},
        {"cxr": {"report": {"model": {"weights": "gone.pkl"}}}},
    ],
    ids=["detector", "report model", "R2Gen"],
)
def test_missing_pretrained_weights_stop_before_anything_runs(repository, tmp_path, overlay):
    path = tmp_path / "overlay.yaml"
    path.write_text(yaml.safe_dump(overlay))
    done = snakemake(repository, tmp_path, "-n", "--cores", "1", "--configfile", str(path))
    assert done.returncode != 0
    assert "gone.pkl" in done.stderr + done.stdout


def test_the_table_of_ones_own_is_a_result_beside_the_model(repository, tmp_path):
    path = tmp_path / "overlay.yaml"
    (tmp_path / "mine.yaml").write_text((structure_tables.FOLDER / "ten.yaml").read_text(encoding="utf-8"))
    for table, count in (("ten", 0), (str(tmp_path / "mine.yaml"), 1)):
        path.write_text(yaml.safe_dump({"ct": {"structures": {"table": table}}}))
        done = snakemake(repository, tmp_path, "-n", "--cores", "1", "describe_ct_reading", "--configfile", str(path))
        assert "describe_ct_reading" in planned_jobs(done)
        assert done.stdout.count("results/ct/train_ct_report_model/structure_table.yaml") == count


def test_a_table_of_ones_own_is_an_input_of_every_rule_that_reads_it(repository, tmp_path):
    """A word changed in it planned nothing."""
    (tmp_path / "mine.yaml").write_text((structure_tables.FOLDER / "ten.yaml").read_text(encoding="utf-8"))
    (tmp_path / "overlay.yaml").write_text(yaml.safe_dump({"ct": {"structures": {"table": str(tmp_path / "mine.yaml")}}}))
    done = snakemake(repository, tmp_path, "ct", "--filegraph", "--configfile", str(tmp_path / "overlay.yaml"))
    nodes = re.split(r'<b><font point-size="18">', done.stdout)[1:]
    readers = {node.split("<")[0] for node in nodes if str(tmp_path / "mine.yaml") in node}
    assert readers == {
        "build_ct_annotation",
        "train_structures",
        "evaluate_structures",
        "generate_ct_reports_shard",
        "render_ct_gallery",
        "describe_ct_reading",
    }


def described_by_the_rules(repository: Path, directory: Path, roots: dict[str, str]) -> dict[str, bool]:
    """What describe_reading and describe_ct_reading say of ``synthetic`` with the settings that their rules give them.

    Args:
        repository: of the workflow.
        directory: working directory of the run.
        roots: ``data`` of a source, such as ``cxr.labelled`` -> its root; the others keep theirs.
    """
    overlay: dict[str, dict] = {"cxr": {"data": {}}, "ct": {"data": {}}}
    for name, root in roots.items():
        wing, source = name.split(".")
        overlay[wing]["data"][source] = {"root": root}
    path = directory / "overlay.yaml"
    path.write_text(yaml.safe_dump(overlay))
    targets = ("describe_reading", "describe_ct_reading", "--configfile", str(path))
    done = snakemake(repository, directory, "-n", "-p", "--cores", "1", *targets)
    assert done.returncode == 0, done.stderr + done.stdout
    given = {}
    for wing, rule in (("cxr", "describe-reading"), ("ct", "describe-ct-reading")):
        (settings,) = re.findall(rf"d2rnet {rule} .*--configfile (\S+)", done.stdout)
        given[wing] = directory / settings
        (directory / wing).mkdir()
    (directory / "weights").touch()
    describe_reading(weights=directory / "weights", report_model=directory / "cxr", configfile=[given["cxr"]])
    describe_ct_reading(report_model=directory / "ct", configfile=[given["ct"]])
    return {wing: read_json(directory / wing / "reading.json")["synthetic"] for wing in given}


OWN_ROOTS = {"cxr.labelled": "own/boxes", "cxr.reports": "own/reports", "ct.reports": "own/ct"}
DRAWN = "elsewhere/cohort"


@pytest.mark.parametrize(
    ("demo_here", "roots", "expected"),
    [
        (True, OWN_ROOTS, {"cxr": False, "ct": False}),
        (False, OWN_ROOTS | {"cxr.labelled": f"{DRAWN}/boxes", "ct.reports": f"{DRAWN}/ct"}, {"cxr": True, "ct": True}),
        (False, OWN_ROOTS | {"cxr.reports": f"{DRAWN}/reports"}, {"cxr": True, "ct": False}),
    ],
    ids=["own data beside an earlier demo", "boxes and CTs of a demo elsewhere", "reports of a demo elsewhere"],
)
def test_what_a_reading_warns_of_follows_the_roots_of_the_run(repository, tmp_path, monkeypatch, demo_here, roots, expected):
    for folder in ("resources/cxr/demo_cohort", "resources/ct/demo_cohort") if demo_here else (DRAWN,):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "cohort.json").write_text("{}")
    monkeypatch.chdir(tmp_path)
    assert described_by_the_rules(repository, tmp_path, roots) == expected
