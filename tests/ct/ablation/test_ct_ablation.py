"""Ablation of chest CT: scores counted by hand, what stands beside them, and cells of the real commands."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from ct_evaluation_samples import EFFUSION, NODULE, NORMAL, PROTOCOL, cleaned, entry
from ct_report_samples import SMALL
from structure_samples import tiny_settings, write_samples

from d2rnet.ct.ablation.design import plan_arms, read_design
from d2rnet.ct.ablation.folders import Folders
from d2rnet.ct.ablation.score import LAYOUT, ct_ablation
from d2rnet.ct.ablation.settings import AblateCtSettings
from d2rnet.ct.report_model.extract import extract_ct_features, extract_ct_features_shard
from d2rnet.ct.report_model.generate import generate_ct_reports_shard
from d2rnet.ct.report_model.settings import CtGenerationSettings
from d2rnet.ct.report_model.trainer import train_ct_report_model
from d2rnet.ct.report_model.vocabulary import build_ct_vocabulary
from d2rnet.ct.structure_model.evaluate import evaluate_structures
from d2rnet.ct.structure_model.settings import EvaluateStructuresSettings
from d2rnet.ct.structure_model.trainer import train_structures
from d2rnet.errors import DatasetError
from d2rnet.files.documents import read_json, read_jsonl, write_json, write_jsonl
from d2rnet.report.annotation_file import write_annotation
from d2rnet.report.text.vocabulary import count_vocabulary

REPORTS = {"a": NODULE, "b": EFFUSION, "c": NORMAL, "d": NODULE}
CLEAR = dict.fromkeys(REPORTS, NORMAL)
ARMS: dict[str, Any] = {
    "base": {"label": "all of it", "side": False, "structure_model": {}, "report": {}},
    "other": {
        "label": "a queue",
        "side": True,
        "structure_model": {"training": {"queue": {"length": 9}}},
        "report": {},
    },
    "twin": {
        "label": "same dropout",
        "side": True,
        "structure_model": {"model": {"observer": {"dropout": AblateCtSettings().structure_model.model.observer.dropout}}},
        "report": {},
    },
}
SETTINGS = AblateCtSettings.read(
    {"evaluation": {"meteor": False, "bootstrap_samples": 50}, "ablation": {"seeds": [1, 2], "side_seeds": [1]}}
)
MICRO = "ct18_vs_report_uncertain_positive_micro_f1"


def write_cell(folder: Path, hypotheses: dict[str, str], *, steps: int = 20) -> None:
    """Write what training and generation of stage 2 leave."""
    write_jsonl(
        folder / "reports.jsonl",
        [{"id": name, "reference": cleaned(REPORTS[name]), "hypothesis": cleaned(text)} for name, text in hypotheses.items()],
    )
    write_jsonl(folder / "metrics.jsonl", [{"epoch": 1, "step": steps, "train_seconds": 30.0}])
    trained = {"device": "cpu", "hardware": {"processor": "some processor", "gpus": []}}
    write_json(folder / "run.json", trained | {"code": {"commit": "abc1234", "dirty": False}})
    counts = {"reports": len(hypotheses), "visual_tokens": 10 * len(hypotheses)}
    write_json(folder / "reports.run.json", {"code": {"commit": "def5678", "dirty": False}, "counts": counts})
    count_vocabulary(["x"], protocol=PROTOCOL, section="findings", min_token_count=1).save(folder / "vocabulary.json")


def write_structures(folder: Path, ranks: dict[str, list[int | None]], *, queue: bool = True, equals: int = 1) -> None:
    """Write what training and evaluation of stage 1 leave, as far as the table reads it; ``equals`` texts are as near each."""
    row = {"volumes": 4, "image_to_text_chance_at_5": 0.25, "image_to_text_commonest_at_5": 0.5, "effective_rank": 3.0}
    of_batch: dict[str, float | None] = {"batch_negatives": 6.0, "batch_false_negatives": 2.0}
    rows = dict.fromkeys(ranks, row | of_batch)
    rows["bone"] = {"volumes": 0} | dict.fromkeys([*row, *of_batch], None) | {"effective_rank": 1.0}
    document = {"structures": rows, "collapsed": ["bone"], "zero_shot_auroc_macro": 0.75}
    write_json(folder / "scores" / "metrics.json", document)
    lines = []
    for place, name in enumerate(REPORTS):
        of_volume = {one: values[place] for one, values in ranks.items()} | {"bone": None}
        alone = {one: rank and equals for one, rank in of_volume.items()}
        lines.append({"id": name, "subject_id": f"p{name}", "ranks": of_volume, "equals": alone})
    write_jsonl(folder / "scores" / "per_volume.jsonl", lines)
    held = {"queue_normal_share": 0.5, "queue_distinct_texts": 7.0} if queue else {}
    write_jsonl(folder / "metrics.jsonl", [{"step": 5, "train_seconds": 60.0}, {"step": 10, "train_seconds": 60.0} | held])


@pytest.fixture
def inputs(tmp_path: Path) -> dict[str, Any]:
    """The base is right with seed 1 and blind with seed 2; the other arm finds one nodule of three findings."""
    folder = tmp_path / "ablation"
    write_cell(folder / "cells" / "base" / "seed_1", REPORTS)
    write_cell(folder / "cells" / "base" / "seed_2", CLEAR)
    write_cell(folder / "cells" / "other" / "seed_1", CLEAR | {"a": NODULE})
    write_structures(folder / "structures" / "base" / "seed_1", {"lung": [1, 6, None, 2], "pleura": [None, 5, None, 7]})
    write_structures(folder / "structures" / "base" / "seed_2", {"lung": [1, 1, None, 1], "pleura": [None, 5, None, 5]})
    write_structures(
        folder / "structures" / "other" / "seed_1", {"lung": [9, 9, None, 9], "pleura": [None, 5, None, 7]}, queue=False
    )
    named = {NODULE: ["Lung nodule"], EFFUSION: ["Pleural effusion"], NORMAL: []}
    entries = [entry(name, text, named[text]) for name, text in REPORTS.items()]
    write_annotation(tmp_path / "ct_annotation.json", {"train": [entry("t", NORMAL, split="train")], "test": entries})
    (tmp_path / "design.yaml").write_text(yaml.safe_dump({"reference": "base", "arms": ARMS}))
    write_jsonl(tmp_path / "nearest.jsonl", [{"id": name, "hypothesis": cleaned(EFFUSION)} for name in REPORTS])
    return {
        "folder": folder,
        "annotation": tmp_path / "ct_annotation.json",
        "design": tmp_path / "design.yaml",
        "nearest": [tmp_path / "nearest.jsonl"],
        "label_set": [],
        "output": tmp_path / "out",
        "settings": SETTINGS,
    }


def scored(inputs: dict[str, Any]) -> dict[str, Any]:
    ct_ablation(**inputs)
    document: dict[str, Any] = read_json(inputs["output"] / "ablation.json")
    return document


def test_scores_by_hand(inputs: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    document = scored(inputs)
    arms = document["arms"]
    names = ["base", "other", "twin", "most_frequent_report", "nearest_training_report", "true_label_set_report"]
    assert list(arms) == names
    f1 = {name: arm["scores"][MICRO] for name, arm in arms.items()}
    assert (f1["base"]["seeds"], f1["base"]["value"], f1["base"]["difference"]) == ([1.0, 0.0], 0.5, None)
    assert f1["other"]["value"] == pytest.approx(2 * 1 / (1 + 3))
    assert f1["other"]["difference"]["value"] == pytest.approx(-0.5), "seed 1 is set beside seed 1"
    assert f1["most_frequent_report"]["difference"]["value"] == -0.5, "a baseline is set beside the mean"
    assert f1["nearest_training_report"]["value"] == pytest.approx(2 * 1 / (4 + 3))
    assert set(arms["base"]["scores"]) == {key for key in LAYOUT.metrics if key != "meteor"}
    assert document["protocol"] == {
        "text": "faithful",
        "section": "findings",
        "split": "test",
        "level": "scan",
        "volumes": 4,
        "scans": 4,
        "patients": 4,
    }
    assert document["facts"]["steps"] == 20
    assert [arms[name]["seeds"] for name in names] == [[1, 2], [1], [1, 2], [], [], []]
    assert [f1[name]["difference"]["seeds"] for name in names[1:4]] == [[1], [1, 2], [1, 2]]
    printed = capsys.readouterr().out
    assert printed == (inputs["output"] / "ablation.md").read_text()
    assert "50.0 [" in printed and "(0.0 to 100.0)" in printed and "meteor: not run" in printed
    for suffix in ("csv", "html", "svg", "png"):
        assert (inputs["output"] / f"ablation.{suffix}").stat().st_size > 500


def test_what_stage_1_found_is_the_mean_over_structures_and_resampled_by_patient(inputs: dict[str, Any]) -> None:
    arms = scored(inputs)["arms"]
    found = {name: arms[name]["scores"]["structures_recall_at_5"] for name in ("base", "other", "twin")}
    assert found["base"]["seeds"] == [pytest.approx((2 / 3 + 1 / 2) / 2), pytest.approx(1.0)]
    assert found["other"]["value"] == pytest.approx((0 + 1 / 2) / 2)
    assert found["other"]["difference"]["value"] == pytest.approx((0 - 2 / 3) / 2)
    low, high = found["other"]["interval"]
    assert low == 0.0 and high == pytest.approx(0.5), "pleura is found in b or not, as b and d are drawn; the lung never"
    assert "structures_recall_at_5" not in arms["most_frequent_report"]["scores"]


def test_an_arm_like_another_stands_there_with_its_name(inputs: dict[str, Any]) -> None:
    arms = scored(inputs)["arms"]
    assert arms["twin"]["label"] == "same dropout (= base)"
    assert arms["twin"]["scores"][MICRO]["seeds"] == arms["base"]["scores"][MICRO]["seeds"]
    assert arms["twin"]["scores"][MICRO]["difference"] == {
        "value": 0.0,
        "interval": [0.0, 0.0],
        "interval_seeds": [0.0, 0.0],
        "seeds": [1, 2],
    }
    assert read_json(inputs["output"] / "run.json")["counts"] == {
        "cells": 3,
        "structures": 3,
        "volumes": 4,
        "scans": 4,
        "patients": 4,
    }


def test_texts_that_are_equally_near_count_as_in_random_order(inputs: dict[str, Any]) -> None:
    folder = inputs["folder"] / "structures" / "other" / "seed_1"
    write_structures(folder, {"lung": [3, 6, None, 1], "pleura": [None, 5, None, 7]}, queue=False, equals=4)
    found = scored(inputs)["arms"]["other"]["scores"]["structures_recall_at_5"]
    # of four equals from place 3 on three are among the first five, from 1 on all, from 5 on one
    assert found["value"] == pytest.approx(((3 / 4 + 0 + 1) / 3 + (1 / 4 + 0) / 2) / 2)
    lines = list(read_jsonl(folder / "scores" / "per_volume.jsonl"))
    for line in lines:
        del line["equals"]
    write_jsonl(folder / "scores" / "per_volume.jsonl", lines)
    with pytest.raises(DatasetError, match=r"per_volume\.jsonl: lacks equals; .*--forcerun evaluate_ct_ablation_structures"):
        scored(inputs)


def test_what_was_measured_beside(inputs: dict[str, Any]) -> None:
    arms = scored(inputs)["arms"]
    measured = arms["base"]["measured"]
    assert (measured["chance_at_5"], measured["commonest_at_5"]) == (0.25, 0.5)
    assert measured["effective_rank"] == pytest.approx((3 + 3 + 1) / 3)
    assert (measured["batch_negatives"], measured["batch_false_negatives"], measured["collapsed"]) == (6.0, 2.0, 1.0)
    assert (measured["queue_normal_share"], measured["attention_ratio"], measured["zero_shot_auroc"]) == (0.5, None, 0.75)
    assert (measured["stage_1_minutes"], measured["stage_2_minutes"], measured["visual_tokens"]) == (2.0, 0.5, 10.0)
    assert arms["base"]["train_seconds"] == [150.0, 150.0]
    assert arms["other"]["measured"]["queue_normal_share"] is None
    assert arms["most_frequent_report"]["measured"] is None
    row = next(line for line in (inputs["output"] / "ablation.md").read_text().splitlines() if "| 2.0" in line)
    assert "| -  " in row, "no masks: nothing to say of attention"


def test_cells_that_cannot_be_compared_are_refused(inputs: dict[str, Any]) -> None:
    other = inputs["folder"] / "cells" / "other" / "seed_1"
    write_cell(other, CLEAR, steps=40)
    with pytest.raises(DatasetError, match=r"seed_\d trained for 20 steps, .*other/seed_1 for 40; expected equal steps"):
        ct_ablation(**inputs)
    write_cell(other, {"a": NODULE})
    with pytest.raises(DatasetError, match=r"other/seed_1/reports.jsonl: its 1 entries are not the 4 of .*base/seed_1"):
        ct_ablation(**inputs)
    (other / "reports.jsonl").unlink()
    with pytest.raises(FileNotFoundError, match=r"other/seed_1/reports.jsonl"):
        ct_ablation(**inputs)


def test_the_commands_fill_the_cells_that_the_table_reads(repository: Path, tmp_path: Path) -> None:
    """Three shipped arms, as the workflow runs them: the second has its own stage 1, the third its own features."""
    samples = write_samples(tmp_path)
    annotation, volumes, folder = samples / "ct_annotation.json", samples / "volumes", tmp_path / "ablation"
    tiny = tiny_settings()
    settings = AblateCtSettings.read(
        {
            "structure_model": tiny.structure_model.to_json(),
            "report": {key: SMALL[key] for key in ("text", "model", "training", "features")},
            "evaluation": {"meteor": False, "bootstrap_samples": 20},
            "ablation": {"arms": ["repaired", "untrained", "all_patches"], "seeds": [1]},
        }
    )
    design = repository / "workflow" / "ct_ablation.yaml"
    plans = plan_arms(read_design(design), settings)
    folders = Folders(folder, plans)
    assert [len(folders.all_of(part)) for part in ("structures", "features", "cells")] == [2, 3, 3]
    for (arm, seed), place in folders.all_of("structures").items():
        own = tiny.replaced(structure_model=plans[arm].stage_one(seed).to_json())
        train_structures(annotation=annotation, volumes=volumes, work=place / "work", output=place, device="cpu", settings=own)
        evaluate_structures(
            annotation=annotation,
            volumes=volumes,
            model=place,
            output=place / "scores",
            device="cpu",
            settings=EvaluateStructuresSettings.read({"structure_model": {"evaluation": {"bootstrap_samples": 20}}}),
        )
    for (arm, seed), place in folders.all_of("features").items():
        extract_ct_features_shard(
            annotation=annotation,
            volumes=volumes,
            structures=folders.place("structures", arm, seed),
            folder=place,
            shard=1,
            shards=1,
            output=place / "1.jsonl",
            device="cpu",
            settings=plans[arm].extraction,
        )
        extract_ct_features(annotation=annotation, shards=[place / "1.jsonl"], output=place, settings=plans[arm].extraction)
    build_ct_vocabulary(annotation=annotation, output=tmp_path / "vocabulary", settings=settings.report.text)
    for (arm, seed), place in folders.all_of("cells").items():
        features = folders.place("features", arm, seed)
        train_ct_report_model(
            annotation=annotation,
            vocabulary=tmp_path / "vocabulary" / "vocabulary.json",
            features=features,
            work=place / "work",
            output=place,
            device="cpu",
            settings=plans[arm].stage_two(seed),
        )
        generate_ct_reports_shard(
            annotation=annotation,
            features=features,
            model=place,
            shard=1,
            shards=1,
            output=place / "reports.jsonl",
            device="cpu",
            settings=CtGenerationSettings.read(SMALL["generation"]),
        )
    ct_ablation(
        folder=folder,
        annotation=annotation,
        design=design,
        nearest=[],
        label_set=[],
        output=tmp_path / "out",
        settings=settings,
    )
    arms = json.loads((tmp_path / "out" / "ablation.json").read_text())["arms"]
    assert list(arms) == ["repaired", "untrained", "all_patches", "most_frequent_report", "true_label_set_report"]
    tokens = {name: arm["measured"]["visual_tokens"] for name, arm in arms.items() if arm["measured"]}
    assert tokens["repaired"] < tokens["all_patches"] == 10 + 8
    found = {name: arms[name]["scores"]["structures_recall_at_5"]["seeds"] for name in tokens}
    assert found["all_patches"] == found["repaired"]
    assert arms["repaired"]["measured"]["batch_negatives"] > 0 and arms["repaired"]["measured"]["zero_shot_auroc"] is not None
