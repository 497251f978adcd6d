"""A folder for a model hub: loads back and reads the same, holds nothing else, its card is what huggingface_hub takes."""

import json
import re
from pathlib import Path

import ct_report_samples as ct_samples
import pytest
import yaml
from reading_samples import FILES

import d2rnet
from d2rnet.cli import main
from d2rnet.ct.structures.table import FOLDER
from d2rnet.files.documents import write_json
from d2rnet.files.hashes import sha256_file


def call(run: Path, output: Path, *words) -> int:
    results = run / "results" / "cxr"
    models = ["--detector", results / "train_detector", "--report-model", results / "train_report_model"]
    return main(["export", "hub", "--output", str(output), *map(str, models), *map(str, words)])


@pytest.fixture(scope="module")
def folder(finished_run, tmp_path_factory):
    """The folder of the miniature run's models, with two cards."""
    place = tmp_path_factory.mktemp("hub")
    (place / "a.md").write_text("# Lesion detector\n\n## Scores\n\n```bash\n# a comment\n```\n")
    (place / "b.md").write_text("# Report model\n\nBLEU-4 $0.3\n")
    assert call(finished_run, place / "upload", "--cards", place / "a.md", place / "b.md") == 0
    return place / "upload"


def front_matter(card: str) -> dict:
    return yaml.safe_load(re.match(r"---\n(.*?)^---\n", card, flags=re.DOTALL | re.MULTILINE)[1])


def test_folder_loads_back_and_reads_the_same(finished_run, folder):
    results = finished_run / "results" / "cxr"
    image = finished_run / "images" / FILES["front"]
    before = d2rnet.load_models(results / "train_detector", results / "train_report_model", device="cpu").read(image)
    after = d2rnet.load_models(folder, device="cpu").read(image)
    assert after.boxes == before.boxes and after.hypothesis == before.hypothesis and after.origin == before.origin
    assert len(after.boxes) > 1, "the case shows nothing"


def test_folder_holds_what_a_reading_needs_and_nothing_else(finished_run, folder):
    files = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    report = [f"report_model/{name}" for name in ("config.yaml", "model.safetensors", "reading.json", "vocabulary.json")]
    assert files == ["README.md", "detector/config.yaml", "detector/model_final.pth", *report]
    assert str(finished_run) not in (folder / "README.md").read_text()


def test_card_has_usage_hashes_and_the_cards_of_both_models(folder):
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert "d2rnet.load_models(" in card and 'pip install ".[read]"' in card and "not a medical device" in card
    for file in ("detector/model_final.pth", "report_model/model.safetensors"):
        assert f"| `{file}` | `{sha256_file(folder / file)}` |" in card
    assert "\n## Lesion detector\n" in card and "\n### Scores\n" in card and "\n# a comment\n" in card
    assert "BLEU-4 $0.3" in card and "synthetic" not in card
    assert front_matter(card) | {"tags": []} == {
        "license": "other",
        "license_name": "not-stated",
        "language": ["en"],
        "library_name": "d2rnet",
        "pipeline_tag": "image-to-text",
        "tags": [],
        "inference": False,
    }


def test_huggingface_hub_itself_reads_the_card(folder):
    hub = pytest.importorskip("huggingface_hub", reason="huggingface_hub is not installed (extra 'test')")
    card = hub.ModelCard.load(folder / "README.md")
    written = front_matter((folder / "README.md").read_text(encoding="utf-8"))
    assert card.data.to_dict() == written and card.data.library_name == "d2rnet" and card.data.license == "other"
    assert "chest-x-ray" in card.data.tags and card.text.lstrip().startswith("# Chest radiographs")
    again = hub.ModelCardData(**written)
    assert again.to_dict() == written


def test_models_of_drawings_say_so_on_the_card(finished_run, scores, tmp_path):
    report = tmp_path / "report"
    report.mkdir()
    for file in (finished_run / "results/cxr/train_report_model").iterdir():
        (report / file.name).write_bytes(file.read_bytes())
    reading = json.loads((report / "reading.json").read_text())
    write_json(report / "reading.json", {**reading, "synthetic": True})
    words = ("--report-model", report, "--license", "apache-2.0", "--scores", *scores)
    assert call(finished_run, tmp_path / "out", *words) == 0
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert "on a real radiograph every finding is meaningless" in card
    front = front_matter(card)
    assert [result["dataset"]["type"] for result in front["model-index"][0]["results"]] == [
        "drawn-demo-cohort-of-chest-radiographs-synthetic"
    ] * 2
    assert "synthetic-data" in front["tags"] and front["license"] == "apache-2.0" and "license_name" not in front


def test_nothing_is_left_of_a_model_that_does_not_load(finished_run, tmp_path, capsys):
    broken = tmp_path / "report"
    broken.mkdir()
    for file in (finished_run / "results/cxr/train_report_model").iterdir():
        (broken / file.name).write_bytes(file.read_bytes()[: 100 if file.suffix == ".safetensors" else None])
    assert call(finished_run, tmp_path / "out" / "folder", "--report-model", broken) == 2
    assert "not a readable safetensors file" in capsys.readouterr().err
    assert list((tmp_path / "out").iterdir()) == []
    (broken / "reading.json").unlink()
    assert call(finished_run, tmp_path / "out" / "folder", "--report-model", broken) == 2
    assert "reading.json: no such file; expected a folder of 'd2rnet train-report-model'" in capsys.readouterr().err


def test_a_folder_with_files_is_not_written_to(finished_run, tmp_path, capsys):
    (tmp_path / "mine.txt").touch()
    assert call(finished_run, tmp_path) == 2
    assert "expected a new or empty folder" in capsys.readouterr().err and [path.name for path in tmp_path.iterdir()] == [
        "mine.txt"
    ]
    assert call(finished_run, tmp_path / "x", "--modality", "mri") == 2
    assert "--modality mri: expected cxr or ct" in capsys.readouterr().err


def test_models_of_ct_load_back_and_the_other_loader_says_which_is_theirs(tmp_path):
    cohort = ct_samples.write_ct_cohort(tmp_path / "cohort")
    model = ct_samples.train(cohort, ct_samples.extract(cohort, tmp_path / "features"), tmp_path / "report")
    ct_samples.describe(model)
    words = [
        "--modality",
        "ct",
        "--structures",
        cohort / "structures",
        "--ct-report-model",
        model,
        "--output",
        tmp_path / "hub",
    ]
    assert main(["export", "hub", *map(str, words)]) == 0
    models = d2rnet.load_ct_models(tmp_path / "hub", device="cpu")
    before = d2rnet.load_ct_models(cohort / "structures", model, device="cpu")
    assert models.origin["models"] == before.origin["models"]
    assert "d2rnet.load_ct_models(" in (tmp_path / "hub" / "README.md").read_text()
    with pytest.raises(FileNotFoundError, match=r"no folder detector in it; .*It reads CTs: d2rnet\.load_ct_models"):
        d2rnet.load_models(tmp_path / "hub")
    (model / "structure_table.yaml").write_bytes((FOLDER / "ten.yaml").read_bytes())
    write_json(model / "reading.json", json.loads((model / "reading.json").read_text()) | {"table": "structure_table.yaml"})
    assert main(["export", "hub", *map(str, words[:-1]), str(tmp_path / "own_table")]) == 0
    assert (tmp_path / "own_table/report_model/structure_table.yaml").is_file()
    assert "structure_table.yaml" in (tmp_path / "own_table/README.md").read_text()
    assert not (tmp_path / "hub/report_model/structure_table.yaml").exists()


def write_scores(folder: Path, command: str, inputs: dict[str, Path], metrics: dict) -> Path:
    """An evaluation: metrics.json, and beside it a run record that names what was scored."""
    folder.mkdir(parents=True)
    named = {name: {"file": str(path), "sha256": sha256_file(path)} for name, path in inputs.items()}
    write_json(folder / "run.json", {"command": command, "inputs": named})
    write_json(folder / "metrics.json", metrics)
    return folder / "metrics.json"


@pytest.fixture(scope="module")
def scores(finished_run, tmp_path_factory) -> tuple[Path, Path]:
    """Scores of both models of the miniature run."""
    place, models = tmp_path_factory.mktemp("scores"), finished_run / "results" / "cxr"
    teacher = {
        "AP50": 0.79712,
        "AP40": 0.81,
        "AP75": None,
        "intervals": {"AP50": [0.75, 0.82]},
        "per_class_AP50": {"ILD": 0.1},
    }
    detector = {"protocol": {"split": "test", "score_floor": 0.05}, "n_images": 120, "n_boxes": 252, "ema_teacher": teacher}
    table = [
        {"metric": "bleu_4", "value": 0.3194, "interval": [0.29, 0.35]},
        {"metric": "bleu_2", "value": 0.4, "interval": None},  # in no summary
        {"metric": "cider", "value": 1.5, "interval": None},
        {"metric": "meteor", "value": None, "interval": None},  # was not run
    ]
    reports = {"protocol": {"text": "r2gen", "section": "findings", "split": "test", "n": 175}, "table": table}
    return (
        write_scores(place / "d", "evaluate-detector", {"ema_teacher": models / "train_detector/model_final.pth"}, detector),
        write_scores(place / "r", "evaluate-reports", {"vocabulary": models / "train_report_model/vocabulary.json"}, reports),
    )


def test_scores_are_a_model_index_that_huggingface_hub_takes(finished_run, scores, tmp_path):
    hub = pytest.importorskip("huggingface_hub", reason="huggingface_hub is not installed (extra 'test')")
    assert call(finished_run, tmp_path / "out", "--scores", *scores, "--dataset", "Ward 7, 2024") == 0
    written = front_matter((tmp_path / "out/README.md").read_text(encoding="utf-8"))
    card = hub.ModelCard.load(tmp_path / "out/README.md")
    found = {result.metric_type: result for result in card.data.eval_results}
    assert card.data.model_name.startswith("Chest radiographs") and list(found) == ["AP50", "AP40", "bleu_4", "cider"]
    assert found["AP50"].metric_value == 0.7971 and found["AP50"].metric_name == "AP50, EMA teacher"
    assert found["AP50"].metric_args == {"interval_95": [0.75, 0.82]} and found["AP40"].metric_args is None
    detection, writing = found["AP40"], found["bleu_4"]
    assert (detection.task_type, writing.task_type) == ("object-detection", "image-to-text")
    assert {one.dataset_name for one in found.values()} == {"Ward 7, 2024"} and writing.dataset_type == "ward-7-2024"
    assert detection.dataset_args == {"n": 120, "n_boxes": 252, "protocol": {"split": "test", "score_floor": 0.05}}
    assert writing.dataset_args["n"] == 175 and writing.dataset_args["protocol"]["section"] == "findings"
    assert writing.dataset_split == "test"
    assert hub.ModelCardData(**written).to_dict() == written


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("weights", "its run record names ema_teacher of SHA-256 0; expected the scores of these models"),
        ("command", "of summarize; expected metrics.json of evaluate-detector or"),
        ("metrics", "lacks 'n_boxes'; expected metrics.json of 'd2rnet evaluate-detector'"),
        ("protocol", "no object with 'protocol'"),
        ("name", "--dataset: missing; expected the name of the data"),
    ],
)
def test_scores_of_other_weights_or_of_nameless_data_are_refused(finished_run, scores, tmp_path, capsys, change, message):
    folder = tmp_path / "scores"
    folder.mkdir()
    record, metrics = (json.loads((scores[0].parent / name).read_text()) for name in ("run.json", "metrics.json"))
    if change == "weights":
        record["inputs"]["ema_teacher"]["sha256"] = "0"
    elif change == "command":
        record["command"] = "summarize"
    elif change == "metrics":
        del metrics["n_boxes"]
    elif change == "protocol":
        metrics = []
    write_json(folder / "run.json", record)
    write_json(folder / "metrics.json", metrics)
    named = () if change == "name" else ("--dataset", "x")
    assert call(finished_run, tmp_path / "out", "--scores", folder / "metrics.json", *named) == 2
    told = " ".join(capsys.readouterr().err.split())
    assert message in re.sub(r"(SHA-256 0), .* has \w+;", r"\1;", told)
    assert not (tmp_path / "out").exists()
