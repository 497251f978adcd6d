"""Arms of the ablation of chest CT: what they differ in over any preset, what they share, and designs that are none."""

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from structure_samples import tiny_settings, write_samples

from d2rnet.config import Config
from d2rnet.ct.ablation.design import ArmPlan, CtAblationDesign, plan_arms, read_design
from d2rnet.ct.ablation.folders import Folders
from d2rnet.ct.ablation.settings import AblateCtSettings
from d2rnet.ct.structure_model.model import load_structure_model
from d2rnet.ct.structure_model.trainer import make_objective, train_structures
from d2rnet.errors import ConfigError
from d2rnet.settings import merge, read_overlay

ARM: dict[str, Any] = {"label": "an arm", "side": False, "structure_model": {}, "report": {}}
DESIGN: dict[str, Any] = {"reference": "base", "arms": {"base": ARM}}


def shipped(repository: Path) -> CtAblationDesign:
    return read_design(repository / "workflow" / "ct_ablation.yaml")


def settings_over(repository: Path, *presets: str) -> AblateCtSettings:
    overlay: dict[str, Any] = {}
    for preset in presets:
        overlay = merge(overlay, read_overlay(repository / "workflow" / "presets" / "ct" / f"{preset}.yaml"))
    ct = Config.read(overlay).ct.to_json()
    kept = {name: ct[name] for name in ("structure_model", "report", "evaluation", "ablation")}
    for name, unread in (("structure_model", ("evaluation",)), ("report", ("generation",))):
        kept[name] = {key: value for key, value in kept[name].items() if key not in unread}
    return AblateCtSettings.read(kept)


def planned(repository: Path, **arms: dict[str, Any]) -> dict[str, ArmPlan]:
    design = CtAblationDesign.read(
        {"reference": "base", "arms": {"base": ARM} | {name: ARM | arm for name, arm in arms.items()}}
    )
    return plan_arms(design, settings_over(repository))


def trained(plans: dict[str, ArmPlan], part: str) -> list[tuple[str, int]]:
    return [*Folders(Path("x"), plans).all_of(part)]


@pytest.mark.parametrize("presets", [(), ("tiny",), ("ct_rate",), ("ct_rate", "ct_clip"), ("ct_rate", "radgenome")])
def test_shipped_arms_differ_in_what_their_names_say(repository: Path, presets: tuple[str, ...]) -> None:
    settings = settings_over(repository, *presets)
    plans = plan_arms(shipped(repository), settings)
    training = {name: plan.structure_model.training for name, plan in plans.items()}
    assert plans["repaired"].structure_model == settings.structure_model and plans["repaired"].report == settings.report
    assert [training[name].contrast.soft_share for name in ("hard", "soft")] == [0.0, settings_of_soft(settings)]
    own = settings.structure_model.training.queue.length
    lengths = dict.fromkeys(plans, own) | {"hard": 0, "soft": 0}
    lengths |= dict.fromkeys(("fifo", "released_rule", "closest_pair", "as_released"), 64)
    assert {name: one.queue.length for name, one in training.items()} == lengths
    rules = {name: training[name].queue.rule for name in ("fifo", "released_rule", "closest_pair", "as_released")}
    assert rules == {"fifo": "fifo", "released_rule": "released", "closest_pair": "closest_pair", "as_released": "released"}
    weights = [training[f"weight_{name}"].contrast.other_structures_weight for name in ("0", "01", "1")]
    assert weights == [0.0, 0.1, 1.0]
    assert [plans[name].structure_model.text.missing for name in ("masked", "normal")] == ["mask", "normal"]
    seen = {name: plans[name].report.model for name in plans}
    assert [seen[f"k_{k}"].patches_per_structure for k in (1, 4, 9)] == [1, 4, 9]
    chosen = ["all_patches", "random_patches", "mean", "no_patches"]
    assert [seen[name].selection for name in chosen] == ["all", "random", "mean", "none"]
    assert len({plans[name].structures for name in (*chosen, "k_1", "k_4", "k_9", "repaired")}) == 1
    assert len({plans[name].structures for name in ("repaired", "untrained", "hard", "fifo", "normal")}) == 5
    assert (plans["soft"].structures == "repaired") is (own == 0)
    taught = {name: plan.report.training for name, plan in plans.items()}
    told = {name: (one.abnormality_loss, one.abnormality_weight) for name, one in taught.items()}
    own_loss, own_weight = told["repaired"]
    expected = dict.fromkeys(plans, (own_loss, own_weight)) | dict.fromkeys(("tokens_alone", "as_released"), (0.0, 1.0))
    assert told == expected | {"no_abnormality_loss": (0.0, own_weight), "even_weights": (own_loss, 1.0)}
    one_layer = {name for name in plans if not seen[name].structure_projections}
    assert one_layer == {"tokens_alone", "one_projection", "as_released"}
    for name, plan in plans.items():
        steps = taught[name].replaced(abnormality_loss=own_loss, abnormality_weight=own_weight)
        assert steps == settings.report.training, "arms must train for equal steps"
        assert plan.stage_one(7).training.seed == plan.stage_two(7).training.seed == 7
    assert training["fifo"].epochs == settings.structure_model.training.epochs


def settings_of_soft(settings: AblateCtSettings) -> float:
    share = settings.structure_model.training.contrast.soft_share
    assert share > 0
    return share


def test_as_released_is_the_preset_of_that_name(repository: Path) -> None:
    """Every switch, and no size; what the preset does not say is as the settings describe the release."""
    arm = plan_arms(shipped(repository), settings_over(repository))["as_released"]
    preset = settings_over(repository, "ct_rate", "as_released")
    training, released = arm.structure_model.training, preset.structure_model.training
    assert training.contrast == released.contrast
    assert training.queue.replaced(length=1000) == released.queue
    assert arm.structure_model.text.missing == preset.structure_model.text.missing
    sizes = {"d_model": 768, "d_ff": 3072, "num_heads": 12}
    assert arm.structure_model.model.observer.replaced(**sizes) == preset.structure_model.model.observer
    sizes = {"d_model": 512, "d_ff": 512, "num_heads": 8, "num_layers": 3, "memory_heads": 8}
    assert arm.report.model.replaced(**sizes) == preset.report.model.replaced(llm=arm.report.model.llm.to_json())
    assert arm.extraction == preset.report.features.replaced(precision="32-true")


def test_parts_are_shared_by_arms_that_are_alike_in_them(repository: Path) -> None:
    length = AblateCtSettings().structure_model.training.queue.length
    plans = planned(
        repository,
        every={"report": {"features": {"patches": "all"}, "model": {"selection": "all"}}},
        drawn={"report": {"features": {"patches": "all"}, "model": {"selection": "random"}}, "side": True},
        other={"structure_model": {"training": {"queue": {"length": length + 1}}}},
        twin={"structure_model": {"training": {"queue": {"length": length}}}, "side": True},
        other_twin={"structure_model": {"training": {"queue": {"length": length + 1}}}, "report": {"model": {"dropout": 0.3}}},
    )
    places = {name: (plan.structures, plan.features, plan.cells) for name, plan in plans.items()}
    assert places == {
        "base": ("base", "base", "base"),
        "every": ("base", "every", "every"),
        "drawn": ("base", "every", "drawn"),
        "other": ("other", "other", "other"),
        "twin": ("base", "base", "base"),
        "other_twin": ("other", "other", "other_twin"),
    }
    assert plans["drawn"].seeds == (1,) and plans["every"].seeds == (1, 2, 3)
    assert trained(plans, "structures") == [(name, seed) for name in ("base", "other") for seed in (1, 2, 3)]
    assert Folders(Path("x"), plans).place("features", "drawn", 1) == Path("x/features/every/seed_1")
    assert ("drawn", 1) in trained(plans, "cells") and ("drawn", 2) not in [*Folders(Path("x"), plans).all_of("cells")]


def test_what_a_side_arm_shares_is_trained_with_the_seeds_of_all(repository: Path) -> None:
    changed = {"structure_model": {"text": {"missing": "normal"}}}
    plans = planned(repository, first={"side": True} | changed, second=changed | {"report": {"model": {"dropout": 0.3}}})
    assert plans["second"].structures == "first"
    assert [one for one in trained(plans, "structures") if one[0] == "first"] == [("first", seed) for seed in (1, 2, 3)]
    assert [one for one in trained(plans, "cells") if one[0] == "first"] == [("first", 1)]


@pytest.mark.parametrize(
    ("arms", "message"),
    [
        (["nobody", "base"], r"ct\.ablation\.arms: nobody: expected arms of the design \(base, more\)"),
        (["more"], r"ct\.ablation\.arms: leaves out 'base', which the others are compared with"),
    ],
)
def test_chosen_arms_are_of_the_design_and_hold_the_reference(arms: list[str], message: str) -> None:
    design = CtAblationDesign.read({"reference": "base", "arms": {"base": ARM, "more": ARM}})
    with pytest.raises(ConfigError, match=message):
        plan_arms(design, AblateCtSettings().replaced(ablation={"arms": arms}))
    assert [*plan_arms(design, AblateCtSettings().replaced(ablation={"arms": ["base"]}))] == ["base"]


@pytest.mark.parametrize(
    ("arm", "message"),
    [
        (
            {"structure_model": {"training": {"queue_rule": "fifo"}}},
            "arm base of .*training.queue_rule: unknown key",
        ),
        ({"report": {"model": {"selection": "all"}}}, r"arm base of the ablation: .*selection: 'all' needs .*patches all"),
        ({"report": {"model": {"patches_per_structure": 10}}}, "arm base of the ablation: .*the features hold 9"),
        ({"side": "yes"}, "arms.base.side: 'yes'"),
        ({"boxes": "pseudo"}, "boxes: unknown key"),
    ],
)
def test_designs_that_are_none(tmp_path: Path, arm: dict[str, Any], message: str) -> None:
    (tmp_path / "design.yaml").write_text(yaml.safe_dump({"reference": "base", "arms": {"base": ARM | arm}}))
    with pytest.raises(ConfigError, match=f"(?s){message}"):
        read_design(tmp_path / "design.yaml")


def test_arms_of_a_configuration_that_keeps_too_little_are_planned(repository: Path) -> None:
    """Every start of the workflow plans them; whoever trains is told of the configuration itself."""
    settings = settings_over(repository)
    too_few = settings.replaced(report={"features": {"most_per_structure": 2}})
    assert [*plan_arms(shipped(repository), too_few)] == [*plan_arms(shipped(repository), settings)]


@pytest.mark.parametrize("name", ["label_set_report", "true_label_set_report", "most_frequent_report"])
def test_names_of_baselines_are_taken(tmp_path: Path, name: str) -> None:
    (tmp_path / "design.yaml").write_text(yaml.safe_dump({"reference": name, "arms": {name: ARM}}))
    with pytest.raises(ConfigError, match=f"arm '{name}': the table has a baseline of this name"):
        read_design(tmp_path / "design.yaml")


def test_the_observer_of_no_stage_1_has_its_random_weights(repository: Path, tmp_path: Path) -> None:
    changes = shipped(repository).arms["untrained"].structure_model
    settings = tiny_settings(**merge(changes, {"training": {"seed": 5}}))
    samples = write_samples(tmp_path)
    train_structures(
        annotation=samples / "ct_annotation.json",
        volumes=samples / "volumes",
        work=tmp_path / "work",
        output=tmp_path / "model",
        device="cpu",
        settings=settings,
    )
    trained = load_structure_model(tmp_path / "model", torch.device("cpu"))
    torch.manual_seed(5)
    fresh = make_objective(settings.structure_model, settings.data.conversion, trained.vocabulary, trained.structures).model
    # What standardises observations is counted, not trained; parameters alone are compared.
    for (name, ours), theirs in zip(fresh.named_parameters(), trained.model.parameters(), strict=True):
        torch.testing.assert_close(theirs.detach(), ours.detach(), rtol=0, atol=1e-20, msg=name)
