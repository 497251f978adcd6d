"""The ablation of chest CT for real, on the tiny cohort: minutes; what is there is not made again."""

from pathlib import Path

import pytest
import yaml
from test_dag import planned_jobs, snakemake

from d2rnet.files.documents import read_json

pytestmark = [pytest.mark.e2e, pytest.mark.slow]
TINY = "workflow/presets/ct/tiny.yaml"


def test_arms_are_trained_scored_and_resumed(repository: Path, tmp_path: Path) -> None:
    overlay = tmp_path / "short.yaml"
    ablation = {"arms": ["repaired", "untrained", "masked", "all_patches"], "seeds": [1]}
    overlay.write_text(yaml.safe_dump({"ct": {"ablation": ablation, "evaluation": {"bootstrap_samples": 20}}}))
    run = tmp_path / "a run"
    arguments = ("--cores", "2", "ct_ablation", "--configfile", str(repository / TINY), str(overlay))
    done = snakemake(repository, run, *arguments)
    assert done.returncode == 0, done.stderr[-6000:]
    results = run / "results" / "ct" / "ct_ablation"
    assert {path.parent.name for path in results.glob("structures/*/seed_1")} == {"repaired", "untrained"}
    assert {path.parent.name for path in results.glob("cells/*/seed_1")} == {"repaired", "untrained", "all_patches"}
    document = read_json(results / "ablation.json")
    assert list(document["arms"])[:4] == ablation["arms"]
    assert {"label_set_report", "nearest_training_report"} <= document["arms"].keys()
    assert document["arms"]["repaired"]["measured"]["attention_ratio"] > 0, "the demo cohort has masks"
    assert planned_jobs(snakemake(repository, run, "-n", *arguments)) == set()
    for gone in ("cells/all_patches/seed_1/reports.jsonl", "ablation.json"):
        (results / gone).unlink()
    again = planned_jobs(snakemake(repository, run, "-n", *arguments))
    assert again == {"generate_ct_ablation_reports", "ct_ablation"}
