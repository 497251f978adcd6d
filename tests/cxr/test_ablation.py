"""Ablation: arms, seeds, differences on the same studies, grounding, baselines; mistakes are named."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from d2rnet.config import Config
from d2rnet.cxr.ablation import ablation
from d2rnet.cxr.ablation_design import cell_settings, read_design, seeds_of
from d2rnet.cxr.report_model.settings import ReportSettings, TrainReportModelSettings
from d2rnet.cxr.settings import CxrAblationSettings
from d2rnet.errors import ConfigError, DatasetError
from d2rnet.evaluation.ablation_design import design_folder
from d2rnet.evaluation.settings import ScoreSettings
from d2rnet.files.documents import read_jsonl, write_json, write_jsonl
from d2rnet.report.annotation_file import write_annotation
from d2rnet.report.text.vocabulary import count_vocabulary

NODULE, HEART, CLEAR = "there is a left nodule .", "the heart is enlarged .", "the lungs are clear ."
REFERENCES = {"a": NODULE, "b": HEART, "c": CLEAR, "d": NODULE}
DESIGN = {
    "reference": "base",
    "report": {},
    "arms": {
        "base": {"label": "no boxes", "boxes": "pseudo", "report": {}},
        "full": {"label": "all of it", "boxes": "pseudo", "report": {}},
    },
}
SETTINGS = ScoreSettings(meteor=False, bootstrap_samples=50)


def entry(name: str, split: str = "test") -> dict[str, Any]:
    return {
        "id": name,
        "study_id": f"s{name}",
        "subject_id": name,
        "image_path": [f"{name}.jpg"],
        "split": split,
        "report": REFERENCES.get(name, CLEAR),
        "height": 100,
        "width": 100,
        "boxes": [[0, 0, 10, 10], [50, 50, 20, 20]],
        "scores": [0.9, 0.8],
        "labels": ["Cardiomegaly", "Nodule/Mass"],
    }


def write_cell(folder: Path, hypotheses: dict[str, str], attended: int | None, steps: int = 20) -> Path:
    """Write what training and generation leave; each report is one sentence that attends to one box."""
    write_jsonl(
        folder / "reports.jsonl",
        [
            {
                "id": name,
                "reference": REFERENCES[name],
                "hypothesis": text,
                "sentences": [{"text": text, "boxes": [], "attended": attended}],
            }
            for name, text in hypotheses.items()
        ],
    )
    history = [{"epoch": epoch, "step": epoch * steps // 2, "train_seconds": 30.0} for epoch in (1, 2)]
    write_jsonl(folder / "metrics.jsonl", history)
    trained = {"device": "cpu", "hardware": {"processor": "some processor", "gpus": ["a GPU that did nothing"]}}
    write_json(folder / "run.json", trained | {"code": {"commit": "abc1234", "dirty": False}})
    write_json(folder / "reports.run.json", {"code": {"commit": "def5678", "dirty": True}})
    vocabulary = count_vocabulary(REFERENCES.values(), protocol="r2gen", section="findings", min_token_count=1)
    vocabulary.save(folder / "vocabulary.json")
    return folder


@pytest.fixture
def inputs(tmp_path: Path) -> dict[str, Any]:
    """Two arms by two seeds: the base finds every study clear; the full model is right, but for one of seed 2."""
    clear = dict.fromkeys(REFERENCES, CLEAR)
    cells = [write_cell(tmp_path / "base" / f"seed_{seed}", clear, None) for seed in (1, 2)]
    cells.append(write_cell(tmp_path / "full" / "seed_1", REFERENCES, 1))
    cells.append(write_cell(tmp_path / "full" / "seed_2", {**REFERENCES, "d": CLEAR}, 1))
    write_annotation(
        tmp_path / "annotation.json", {"train": [entry("t", "train")], "test": [entry(name) for name in REFERENCES]}
    )
    (tmp_path / "design.yaml").write_text(yaml.safe_dump(DESIGN))
    box = {"class": "Nodule/Mass", "bbox_xyxy": [50, 50, 70, 70]}
    write_jsonl(tmp_path / "truth.jsonl", [{"image_id": name, "boxes": [box]} for name in REFERENCES])
    write_jsonl(tmp_path / "nearest.jsonl", [{"id": name, "hypothesis": HEART} for name in REFERENCES])
    return {
        "cells": cells[::-1],
        "annotation": tmp_path / "annotation.json",
        "design": tmp_path / "design.yaml",
        "nearest": [tmp_path / "nearest.jsonl"],
        "truth": [tmp_path / "truth.jsonl"],
        "oracle": [],
        "sure": [],
        "output": tmp_path / "out",
        "settings": SETTINGS,
    }


def test_scores_by_hand(inputs: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    ablation(**inputs)
    document = json.loads((inputs["output"] / "ablation.json").read_text())
    arms = document["arms"]
    assert list(arms) == ["base", "full", "most_frequent_report", "lesion_set_report", "nearest_training_report"]
    f1 = {name: arm["scores"]["lesion22_uncertain_positive_micro_f1"] for name, arm in arms.items()}
    assert f1["base"]["seeds"] == [0.0, 0.0]
    assert f1["full"]["seeds"] == [1.0, pytest.approx(2 * 2 / (2 + 3))]  # all three lesions; two of three
    assert f1["full"]["value"] == pytest.approx(0.9) == f1["full"]["difference"]["value"]
    assert f1["full"]["difference"]["interval"][0] > 0
    # seeds 1.0 and 0.8: 12.706 standard errors of 0.1, and something for the studies
    low, high = f1["full"]["difference"]["interval_seeds"]
    assert high - low > 2 * 12.706 * 0.1 and (low + high) / 2 == pytest.approx(0.9)
    assert f1["base"]["difference"] is None
    assert f1["nearest_training_report"]["value"] == pytest.approx(2 * 1 / (4 + 3))  # one heart of four claims, three true
    assert arms["base"]["scores"]["bleu_4"]["value"] == arms["most_frequent_report"]["scores"]["bleu_4"]["value"]
    assert arms["full"]["train_seconds"] == [60.0, 60.0]
    assert document["protocol"] == {"text": "r2gen", "section": "findings", "split": "test", "n": 4}
    facts = document["facts"]
    assert (facts["steps"], facts["machine"]) == (20, "some processor")
    assert {name: arm["seeds"] for name, arm in arms.items()} == {
        "base": [1, 2],
        "full": [1, 2],
        "most_frequent_report": [],
        "lesion_set_report": [],
        "nearest_training_report": [],
    }
    assert facts["commit"].startswith("trained at abc1234, written at def5678 with changes, scored at ")
    printed = capsys.readouterr().out
    assert printed == (inputs["output"] / "ablation.md").read_text()
    page = (inputs["output"] / "ablation.html").read_text()
    assert page.count("<table>") == 3 and all(f'<th scope="row">{arm["label"]}</th>' in page for arm in arms.values())
    assert "| all of it" in printed
    assert "90.0 [" in printed
    assert "(80.0 to 100.0)" in printed
    assert "meteor: not run" in printed
    assert (inputs["output"] / "ablation.svg").stat().st_size > 5000
    table = pd.read_csv(inputs["output"] / "ablation.csv").set_index(["arm", "metric"])
    row = table.loc["full", "lesion22_uncertain_positive_micro_f1"]
    assert (row["value"], row["seeds"]) == (pytest.approx(0.9), "1.0 0.8")
    assert [row["difference_low"], row["difference_high"]] == f1["full"]["difference"]["interval"]
    assert [row["difference_seeds_low"], row["difference_seeds_high"]] == [low, high]
    assert f"[{100 * low:+.1f}, {100 * high:+.1f}]" in printed


def test_an_arm_of_one_seed_is_set_beside_the_same_seed_of_the_reference(inputs: dict[str, Any]) -> None:
    write_cell(inputs["cells"][-1].parent / "seed_1", REFERENCES, None)  # base, whose second seed stays at 0
    cells = [cell for cell in inputs["cells"] if (cell.parent.name, cell.name) != ("full", "seed_2")]
    ablation(**(inputs | {"cells": cells}))
    arms = json.loads((inputs["output"] / "ablation.json").read_text())["arms"]
    f1 = {name: arm["scores"]["lesion22_uncertain_positive_micro_f1"] for name, arm in arms.items()}
    assert (f1["base"]["value"], f1["full"]["value"]) == (0.5, 1.0)
    assert f1["full"]["difference"] == {"value": 0.0, "interval": [0.0, 0.0], "interval_seeds": None, "seeds": [1]}
    of_baseline = f1["most_frequent_report"]["difference"]
    assert of_baseline["value"] == -0.5, "a baseline is set beside the mean of the seeds"
    low, high = of_baseline["interval_seeds"]
    assert high - low > 2 * 12.706 * 0.5, "whose seeds differ by 1"
    assert of_baseline["seeds"] == [1, 2]


def test_the_table_says_over_how_many_seeds_each_number_is(inputs: dict[str, Any], tmp_path: Path) -> None:
    """Two arms with three seeds each, two of them in common."""
    cells = [*inputs["cells"], write_cell(tmp_path / "base" / "seed_7", dict.fromkeys(REFERENCES, CLEAR), None)]
    cells.append(write_cell(tmp_path / "full" / "seed_5", REFERENCES, 1))
    ablation(**(inputs | {"cells": cells}))
    text = (inputs["output"] / "ablation.md").read_text()
    columns = [[cell.strip() for cell in line.split("|")[1:3]] for line in text.splitlines() if line.startswith("| ")]
    assert columns[:6] == [
        ["arm", "seeds"],
        ["no boxes", "3"],
        ["all of it", "3"],
        ["most frequent training report", "-"],
        ["report that names the classes of the boxes", "-"],
        ["report of the nearest training image", "-"],
    ]
    assert columns[6:8] == [["arm", "seeds"], ["all of it", "2"]]
    assert "A difference is over the seeds that an arm shares with 'no boxes' (1, 2, 7), as many as its column says." in text
    assert ", seeds " not in text, "no number of seeds that would be of the arms with most"
    table = pd.read_csv(inputs["output"] / "ablation.csv").set_index(["arm", "metric"])
    found = table.xs("lesion22_uncertain_positive_micro_f1", level="metric")["difference_of_seeds"]
    assert (found["full"], found["most_frequent_report"]) == ("1 2", "1 2 7")


def test_main_arms_have_further_seeds(tmp_path: Path) -> None:
    design = yaml.safe_load(yaml.safe_dump(DESIGN))
    design["arms"]["full"]["main"] = True
    path = tmp_path / "design.yaml"
    path.write_text(yaml.safe_dump(design))
    arms = read_design(path).arms
    settings = CxrAblationSettings.read({"seeds": [3, 1], "main_seeds": [1, 7]})
    assert {name: seeds_of(arm, settings) for name, arm in arms.items()} == {"base": [3, 1], "full": [3, 1, 7]}


@pytest.mark.parametrize(
    ("design", "folder"),
    [
        (None, "ablation"),
        ("workflow/ablation.yaml", "ablation"),
        ("workflow/ablation_inputs.yaml", "ablation_inputs"),
        ("workflow/ablation_rewards.yaml", "ablation_rewards"),
        ("/elsewhere/ablation.yaml", "ablation_ablation"),
        ("my arms{1}.yaml", "ablation_my_arms_1_"),
    ],
)
def test_each_design_has_its_own_folder(design: str | None, folder: str) -> None:
    assert design_folder("ablation", design) == folder
    assert design_folder("ct_ablation", "workflow/ct_ablation.yaml") == design_folder("ct_ablation", None) == "ct_ablation"


def test_grounding_is_that_of_arms_that_see_boxes(inputs: dict[str, Any]) -> None:
    ablation(**inputs)
    arms = json.loads((inputs["output"] / "ablation.json").read_text())["arms"]
    assert arms["base"]["grounding"] is None
    found = arms["full"]["grounding"]
    assert found["seeds"]["sentences"] == [3, 2]
    assert found["seeds"]["hit_rate"] == [pytest.approx(2 / 3), pytest.approx(1 / 2)]  # the heart has no true box
    assert found["seeds"]["sentences_of_entries_without_boxes"] == [0, 0]
    assert found["true_hit_rate"] == 1.0
    assert found["true_random_hit_rate"] == 0.5
    assert found["seeds"]["linked_hit_rate"] == [pytest.approx(2 / 3), pytest.approx(1 / 2)]
    assert (found["true_linked_hit_rate"], found["other_side_rate"], found["linked_other_side_rate"]) == (1.0, 0.0, 0.0)
    assert "linked hits, lesion is there" in (inputs["output"] / "ablation.md").read_text()


def test_without_truth_and_baseline(inputs: dict[str, Any]) -> None:
    ablation(**(inputs | {"truth": [], "nearest": []}))
    arms = json.loads((inputs["output"] / "ablation.json").read_text())["arms"]
    assert list(arms) == ["base", "full", "most_frequent_report", "lesion_set_report"]
    assert arms["full"]["grounding"] is None
    assert "Grounding" not in (inputs["output"] / "ablation.md").read_text()


def test_cells_of_other_studies_are_refused(inputs: dict[str, Any], tmp_path: Path) -> None:
    write_cell(tmp_path / "full" / "seed_2", {"a": CLEAR}, 1)
    with pytest.raises(DatasetError, match=r"seed_2/reports.jsonl: its 1 entries are not the 4 of .*base/seed_1"):
        ablation(**inputs)
    with pytest.raises(DatasetError, match=r"its 1 entries are not those of a split of .*annotation.json"):
        ablation(**(inputs | {"cells": [write_cell(tmp_path / "base" / "seed_3", {"a": CLEAR}, None)]}))
    with pytest.raises(ConfigError, match=r"expected a folder <arm>/seed_<n>, with an arm of the design \(base, full\)"):
        ablation(**(inputs | {"cells": [tmp_path / "other" / "seed_2"]}))
    write_jsonl(tmp_path / "nearest.jsonl", [{"id": "a", "hypothesis": HEART}])
    write_cell(tmp_path / "full" / "seed_2", REFERENCES, 1)
    with pytest.raises(DatasetError, match=r"nearest.jsonl: all reports: got no report for 3 of 4 entries; .*such as b"):
        ablation(**inputs)


def test_cells_that_cannot_be_compared_are_refused(inputs: dict[str, Any], tmp_path: Path) -> None:
    full = tmp_path / "full" / "seed_2"
    with pytest.raises(ConfigError, match="no cell of the arm 'base', which the others are compared with"):
        ablation(**(inputs | {"cells": [full]}))
    write_cell(full, REFERENCES, 1, steps=40)
    with pytest.raises(DatasetError, match=r"seed_\d trained for 20 steps, .*full/seed_2 for 40; expected equal steps"):
        ablation(**inputs)
    write_cell(full, REFERENCES, 1)
    lines = list(read_jsonl(full / "reports.jsonl"))
    write_jsonl(full / "reports.jsonl", [line | {"reference": HEART} for line in lines])
    with pytest.raises(DatasetError, match=r"full/seed_2/reports.jsonl: 3 of 4 references are not those of .*such as a"):
        ablation(**inputs)


@pytest.mark.parametrize("kind", ["oracle", "sure"])
def test_arms_with_other_boxes_are_grounded_in_those(inputs: dict[str, Any], tmp_path: Path, kind: str) -> None:
    """The attended box, the second, is the nodule's among pseudo boxes and not among the oracle's."""
    design = DESIGN | {"arms": DESIGN["arms"] | {"full": DESIGN["arms"]["full"] | {"boxes": kind}}}
    (tmp_path / "design.yaml").write_text(yaml.safe_dump(design))
    oracle = [
        entry(name) | {"boxes": [[50, 50, 20, 20], [0, 0, 10, 10], [0, 0, 9, 9]], "scores": [1.0] * 3} for name in REFERENCES
    ]
    for one in oracle:
        one["labels"] = ["Nodule/Mass", "Cardiomegaly", "Cardiomegaly"]
    write_annotation(tmp_path / "oracle.json", {"train": [entry("t", "train")], "test": oracle})
    with pytest.raises(ConfigError, match=rf"arms with {kind} boxes \(full\) need their annotation.json. .*--{kind}"):
        ablation(**inputs)
    ablation(**(inputs | {kind: [tmp_path / "oracle.json"]}))
    found = json.loads((inputs["output"] / "ablation.json").read_text())["arms"]["full"]["grounding"]
    assert (found["true_hit_rate"], found["true_random_hit_rate"]) == (0.0, pytest.approx(1 / 3))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"reference": "nobody"}, r"reference: 'nobody' is none of the arms \(base, full\)"),
        ({"more": 1}, "more: unknown key; known keys: reference, arms, report, sure_score"),
        ({"arms": ["base"]}, "arms: .*; expected keys with their values"),
        (
            {"arms": {"base": {"label": "x", "boxes": "drawn", "report": {}}}},
            "arms.base.boxes: 'drawn' is not one of",
        ),
        ({"arms": {"base": {"label": "x", "report": {}}}}, "arms.base.boxes: missing"),
        ({"arms": DESIGN["arms"] | {"a/b": DESIGN["arms"]["base"]}}, "arms.a/b: 'a/b': String should match pattern"),
        (
            {"arms": DESIGN["arms"] | {"nearest_training_report": DESIGN["arms"]["base"]}},
            "arm 'nearest_training_report': the table has a baseline of this name",
        ),
        ({"report": {"model": {"lesion_brnch": "none"}}}, "arm base of the ablation.*did you mean 'lesion_branch'"),
    ],
)
def test_designs_that_are_none(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    (tmp_path / "design.yaml").write_text(yaml.safe_dump(DESIGN | change))
    with pytest.raises(ConfigError, match=f"(?s){message}"):
        read_design(tmp_path / "design.yaml")
    with pytest.raises(FileNotFoundError, match="YAML file of an ablation's arms"):
        read_design(tmp_path / "nowhere.yaml")


@pytest.mark.parametrize("text", ["reference: [", "arms: {}\narms: {}\n"], ids=["no YAML", "a key twice"])
def test_files_that_are_no_design(tmp_path: Path, text: str) -> None:
    (tmp_path / "design.yaml").write_text(text)
    with pytest.raises(ConfigError, match=r"design\.yaml: not a YAML file that can be used"):
        read_design(tmp_path / "design.yaml")


@pytest.mark.parametrize("preset", [None, "d2rnet", "utv2", "recommended", "open_data", "tiny"])
def test_shipped_arms_differ_in_what_their_names_say(repository: Path, preset: str | None) -> None:
    """Whatever they are laid over: the published settings have LERA, LAB and GAB on."""
    design = read_design(repository / "workflow" / "ablation.yaml")
    report = ReportSettings()
    if preset:
        overlay = yaml.safe_load((repository / "workflow" / "presets" / "cxr" / f"{preset}.yaml").read_text())
        report = report.replaced(**overlay["cxr"].get("report", {}))
        assert (report != ReportSettings()) is (preset != "utv2")
    cells = {name: cell_settings(report, design, arm=name, seed=7) for name in design.arms}
    models = {name: cell.model for name, cell in cells.items()}
    aligned = {name: cell.training.alignment for name, cell in cells.items()}
    published = {name for name in cells if name.startswith("published")}
    full = {"full", "full_told", "full_oracle"}
    recommended = {"recommended", "recommended_sure", "recommended_oracle"}
    built_up = {f"pointer_detector{more}" for more in ("", "_told", "_sides", "_words")}
    detector = {"detector"} | built_up | recommended
    soft = {name for name in cells if name.endswith(("soft", "soft_queue"))}
    boxes = {kind: {name for name, arm in design.arms.items() if arm.boxes == kind} for kind in ("oracle", "sure")}
    assert boxes["oracle"] == {"recommended_oracle", "tokens_oracle", "full_oracle"}
    assert boxes["sure"] == published | full - {"full_oracle"} | {"tokens_sure", "recommended_sure"}
    assert [name for name, model in models.items() if model.lesion_branch == "none"] == ["base"]
    assert {name for name, model in models.items() if model.lesion_branch == "crop"} == published | full
    assert {name for name, model in models.items() if model.lesion_enhancement == "lera"} == published - {"published"} | full
    for key in ("lesion_class", "lesion_score", "lesion_position"):
        assert {name for name, model in models.items() if not getattr(model, key)} == published
    assert {name for name, model in models.items() if model.lesion_class_dropout} == {"dropout"} | full - {"full_told"}
    assert {name for name, model in models.items() if model.backbone_weights} == detector | full
    both = {"published_all", "published_all_soft", "soft", "soft_queue"} | full
    assert {name for name, found in aligned.items() if found.lab != "none"} == {"published_lab", "published_lab_soft"} | both
    assert {name for name, found in aligned.items() if found.gab != "none"} == {"published_gab", "published_gab_soft"} | both
    assert {name for name, found in aligned.items() if found.sentence_box} == {"sentence_box"} | full
    for key, value in {"targets": "soft", "centring": True, "word_projection": "separate", "projection_bias": False}.items():
        assert {name for name, found in aligned.items() if getattr(found, key) == value} == soft | full
    assert {name for name, found in aligned.items() if found.weight_by != "fixed"} == {"sentence_box"} | soft | full
    assert {name for name, found in aligned.items() if found.queue_length} == {"soft_queue"}
    pointers = {"pointer", "pointer_strong"} | built_up | recommended
    assert {name for name, one in cells.items() if one.training.pointer_weight} == pointers
    told = {"told", "told_sides", "pointer_detector_told", "pointer_detector_sides", "pointer_detector_words"}
    assert {name for name, model in models.items() if model.findings == "told"} == told | recommended
    assert {name for name, model in models.items() if model.finding_scores} == recommended
    sides = {"told_sides", "pointer_detector_sides", "pointer_detector_words"}
    assert {name for name, model in models.items() if model.finding_sides} == sides | recommended
    assert {name for name, one in cells.items() if one.training.side_weight != 1} == {
        "side_words",
        "pointer_detector_words",
    } | recommended
    assert [name for name, model in models.items() if model.findings == "taught"] == ["taught"]
    for cell in cells.values():
        assert cell.training.seed == 7
        assert type(cell) is TrainReportModelSettings
        for key in ("epochs", "batch_size", "learning_rate"):
            assert getattr(cell.training, key) == getattr(report.training, key), "arms must train for equal steps"


def test_arms_of_rewards_differ_in_the_reward(repository: Path) -> None:
    design = read_design(repository / "workflow" / "ablation_rewards.yaml")
    cells = {name: cell_settings(ReportSettings(), design, arm=name, seed=7) for name in design.arms}
    rewards = {name: (cell.training.self_critical.reward, cell.training.selection) for name, cell in cells.items()}
    assert rewards == {"tokens": ("none", "loss"), "reward_f1": ("findings_f1", "reward"), "reward_cider": ("cider", "reward")}
    assert len({cell.model for cell in cells.values()}) == 1
    plain = cell_settings(ReportSettings(), read_design(repository / "workflow" / "ablation.yaml"), arm="tokens", seed=7)
    assert cells["tokens"] == plain, "one folder of cells serves both files"


@pytest.mark.parametrize("preset", [None, "inputs", "d2rnet"])
def test_arms_of_inputs_differ_in_what_their_names_say(repository: Path, preset: str | None) -> None:
    design = read_design(repository / "workflow" / "ablation_inputs.yaml")
    report = ReportSettings()
    if preset:
        overlay = yaml.safe_load((repository / "workflow" / "presets" / "cxr" / f"{preset}.yaml").read_text())
        report = report.replaced(**overlay["cxr"]["report"])
    settings = {name: cell_settings(report, design, arm=name, seed=7) for name in design.arms}
    cells = {name: each.model for name, each in settings.items()}
    inputs = {name: (cell.view_embedding, cell.indication, cell.prior) for name, cell in cells.items()}
    assert inputs == {
        "base": (False, False, False),
        "tokens": (False, False, False),
        "views": (True, False, False),
        "indication": (False, True, False),
        "prior": (False, False, True),
        "all": (True, True, True),
        "told": (False, False, False),
        "told_all": (True, True, True),
        "all_oracle": (True, True, True),
    }
    for name, each in settings.items():
        is_told = name in ("told", "told_all")
        assert (each.model.findings == "told", each.model.finding_sides, each.model.finding_scores) == (is_told,) * 3
        assert (each.training.pointer_weight > 0, each.training.side_weight > 1) == (is_told, is_told)
    assert {name for name, cell in cells.items() if cell.lesion_branch == "none"} == {"base"}
    assert design.reference == "tokens"


def test_the_preset_of_inputs_brings_what_its_model_takes(repository: Path) -> None:
    overlay = yaml.safe_load((repository / "workflow" / "presets" / "cxr" / "inputs.yaml").read_text())
    settings = Config.read(overlay)
    assert set(settings.cxr.annotation.context) == {"views", "indication", "prior"} and settings.cxr.data.reports.context
    assert settings.cxr.ablation.design and (repository / settings.cxr.ablation.design).is_file()
