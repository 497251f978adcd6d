"""d2rnet compare: files and folders, what is refused, the table."""

import json
from pathlib import Path
from typing import Any

import pytest

from d2rnet.cli.entry import main
from d2rnet.errors import DatasetError
from d2rnet.evaluation.compare import compare_runs, read_run
from d2rnet.evaluation.settings import ScoreSettings
from d2rnet.files.documents import write_json, write_jsonl

SETTINGS = ScoreSettings(meteor=False, bootstrap_samples=200)
SENTENCES = ("there is a left pleural effusion .", "the heart is enlarged .", "no pneumothorax .", "a nodule is seen .")


def lines(right: int, *, studies: bool = False, count: int = 12) -> list[dict[str, Any]]:
    """Reports of which the first ``right`` equal their reference; two of each study."""
    found = []
    for row in range(count):
        reference = f"{SENTENCES[row % 4]} finding {row} ."
        line = {"id": f"i{row}", "reference": reference, "hypothesis": reference if row < right else "lungs are clear ."}
        found.append({**line, "study_id": f"s{row // 2}"} if studies else line)
    return found


@pytest.fixture
def runs(tmp_path: Path) -> dict[str, Any]:
    write_jsonl(tmp_path / "a" / "test.jsonl", lines(9))
    write_jsonl(tmp_path / "b.jsonl", lines(3))
    return {
        "run_a": tmp_path / "a",
        "run_b": tmp_path / "b.jsonl",
        "studies": "same",
        "output": tmp_path / "out",
        "settings": SETTINGS,
    }


def test_a_better_run_is_told(runs: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    compare_runs(**runs)
    document = json.loads((runs["output"] / "comparison.json").read_text())
    assert (document["n"], document["n_studies"], document["only_in_a"], document["only_in_b"]) == (12, 12, 0, 0)
    rouge = document["metrics"]["rouge_l"]
    assert rouge["difference"] == pytest.approx(rouge["first"] - rouge["second"])
    assert 0.3 < rouge["difference"] < 0.7 and rouge["interval"][0] > 0 and rouge["p"] < 0.05
    lesions = document["metrics"]["lesion22_uncertain_positive_micro_f1"]
    assert (lesions["first"], lesions["second"]) == (pytest.approx(2 * 7 / (9 + 7)), pytest.approx(2 * 2 / (9 + 2)))
    assert document["notes"] == {"meteor": "not run: evaluation.meteor is false"}
    printed = capsys.readouterr().out
    assert printed == (runs["output"] / "comparison.md").read_text()
    assert "| ROUGE-L" in printed and "n 12 in 12 studies, resampled 200 times" in printed


def test_a_run_equals_itself(runs: dict[str, Any]) -> None:
    compare_runs(**{**runs, "run_b": runs["run_a"]})
    metrics = json.loads((runs["output"] / "comparison.json").read_text())["metrics"]
    assert {found["difference"] for found in metrics.values()} == {0.0}
    assert {found["p"] for found in metrics.values()} == {1.0}


def test_studies_are_known_from_either_run(runs: dict[str, Any]) -> None:
    write_jsonl(runs["run_b"], lines(3, studies=True))
    compare_runs(**runs)
    assert json.loads((runs["output"] / "comparison.json").read_text())["n_studies"] == 6


def test_other_entries_are_refused_or_left_out(runs: dict[str, Any]) -> None:
    write_jsonl(runs["run_b"], lines(3, count=14)[2:])
    with pytest.raises(DatasetError, match=r"10 entries in common, 2 only in .*such as i0; 2 only in .*i12.*--studies common"):
        compare_runs(**runs)
    compare_runs(**{**runs, "studies": "common"})
    document = json.loads((runs["output"] / "comparison.json").read_text())
    assert (document["n"], document["only_in_a"], document["only_in_b"]) == (10, 2, 2)


def test_nothing_in_common_is_refused(runs: dict[str, Any]) -> None:
    write_jsonl(runs["run_b"], [{**line, "id": f"x{line['id']}"} for line in lines(3)])
    with pytest.raises(DatasetError, match="no entry in common"):
        compare_runs(**{**runs, "studies": "common"})


def test_other_references_are_refused(runs: dict[str, Any]) -> None:
    write_jsonl(runs["run_b"], [{**line, "reference": line["reference"].upper()} for line in lines(3)])
    with pytest.raises(DatasetError, match=r"12 of 12 entries have another reference, such as i0: 'there is.*THERE IS"):
        compare_runs(**{**runs, "studies": "common"})


def test_other_protocols_are_refused(runs: dict[str, Any], tmp_path: Path) -> None:
    write_jsonl(tmp_path / "b" / "per_report.jsonl", lines(3))
    for folder, section in (("a", "findings"), ("b", "impression")):
        write_json(tmp_path / folder / "metrics.json", {"protocol": {"text": "r2gen", "section": section, "n": 12}})
    with pytest.raises(DatasetError, match="section is 'findings' in one and 'impression' in the other"):
        compare_runs(**{**runs, "run_b": tmp_path / "b"})


def test_folder_of_a_whole_run(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "results" / "cxr" / "generate_reports" / "test.jsonl", lines(1))
    write_json(tmp_path / "results" / "cxr" / "evaluate_reports" / "metrics.json", {"protocol": {"text": "faithful"}})
    run = read_run(tmp_path)
    assert run.file == tmp_path / "results" / "cxr" / "generate_reports" / "test.jsonl"
    assert (len(run.reports), run.protocol) == (12, {"text": "faithful"})
    write_jsonl(tmp_path / "results" / "cxr" / "evaluate_reports" / "per_report.jsonl", lines(1)[:3])
    assert len(read_run(tmp_path).reports) == 3
    write_jsonl(tmp_path / "cell" / "reports.jsonl", lines(2))  # a cell of the ablation
    assert len(read_run(tmp_path / "cell").reports) == 12


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ({"id": "i0", "reference": "x .", "hypothesis": "x ."}, r"report 13 \(id i0\): got id 'i0' a second time"),
        ({"id": "n", "reference": " ", "hypothesis": "x ."}, r"report 13 \(id n\): got an empty reference"),
        ({"id": "n", "reference": "x ."}, r"report 13 \(id n\): got hypothesis None; expected a string under 'hypothesis'"),
    ],
)
def test_bad_lines_are_named(tmp_path: Path, line: dict[str, Any], complaint: str) -> None:
    write_jsonl(tmp_path / "a.jsonl", [*lines(1), line])
    with pytest.raises(DatasetError, match=complaint):
        read_run(tmp_path / "a.jsonl")


def test_missing_runs_are_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"absent: no such file or folder"):
        read_run(tmp_path / "absent")
    with pytest.raises(FileNotFoundError, match=r"holds none of per_report\.jsonl, test\.jsonl"):
        read_run(tmp_path)
    write_jsonl(tmp_path / "empty.jsonl", [])
    with pytest.raises(DatasetError, match="holds no report"):
        read_run(tmp_path / "empty.jsonl")


def test_command_line(runs: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [str(runs["run_a"]), str(runs["run_b"]), "--output", str(runs["output"]), "--set", "meteor=false"]
    assert main(["compare", *arguments, "--set", "bootstrap_samples=20"]) == 0
    assert "resampled 20 times" in capsys.readouterr().out
    assert main(["compare", *arguments, "--studies", "some"]) == 2
