"""The target ct for real on a tiny cohort: one run, its results, its tables and its page of ``snakemake --report``."""

import pytest
from report_items import assert_report_holds, report_items
from test_dag import planned_jobs, snakemake

from d2rnet.files.documents import read_json, read_jsonl

pytestmark = pytest.mark.e2e
TINY = "workflow/presets/ct/tiny.yaml"


@pytest.fixture(scope="module")
def ct_run(repository, tmp_path_factory):
    """Working directory of a finished tiny run of the target ct."""
    directory = tmp_path_factory.mktemp("tiny ct run")  # a space in the path: every command must quote
    done = snakemake(repository, directory, "--cores", "2", "--configfile", str(repository / TINY), "--", "ct")
    assert done.returncode == 0, done.stderr[-6000:]
    return directory


def test_every_result_folder_says_how_it_was_made(ct_run):
    for rule in (
        "build_ct_annotation",
        "train_structures",
        "evaluate_structures",
        "extract_ct_features",
        "build_ct_vocabulary",
        "train_ct_report_model",
        "generate_ct_reports",
        "retrieve_ct_reports",
        "evaluate_ct_reports",
        "render_ct_gallery",
        "summarize_ct",
        "draw_ct_figures",
    ):
        content = read_json(ct_run / "results" / "ct" / rule / "run.json")
        assert content["command"] == rule.replace("_", "-")
        assert {"code", "settings", "versions", "seeds", "hardware", "counts", "inputs"} <= content.keys()


def test_second_run_has_nothing_to_do(repository, ct_run):
    done = snakemake(repository, ct_run, "-n", "--cores", "1", "--configfile", str(repository / TINY), "--", "ct")
    assert planned_jobs(done) == set()


def test_report_page_holds_every_item_with_its_caption(repository, ct_run, tmp_path):
    page = tmp_path / "report.html"
    arguments = ("--configfile", str(repository / TINY), "--report", str(page), "--", "ct")
    done = snakemake(repository, ct_run, *arguments)
    assert done.returncode == 0, done.stderr[-4000:]
    items = report_items("ct")
    assert len(items) >= 7
    assert_report_holds(page, items)


def test_summary_has_both_stages_and_says_that_the_data_is_synthetic(ct_run):
    summary = (ct_run / "results/ct/summarize_ct/summary.md").read_text(encoding="utf-8")
    generated = list(read_jsonl(ct_run / "results/ct/generate_ct_reports/test.jsonl"))
    assert summary.index("Stage 1, what the structures observe") < summary.index("Stage 2, the reports")
    assert "synthetic CT cohort" in summary and f"n {len(generated)};" in summary and "| attention" in summary


@pytest.mark.parametrize("card", ["structure_model_card.md", "report_model_card.md"])
def test_weights_have_their_card_with_scores(ct_run, card):
    text = " ".join((ct_run / "results/ct/summarize_ct" / card).read_text(encoding="utf-8").split())
    assert "**Synthetic**: drawn by code" in text and "training.epochs | 2 |" in text and "95 % interval over patients" in text
