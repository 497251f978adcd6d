"""Profiles: README.md explains each key with the value it has, and what the SLURM profile says fits the rules."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

PROFILES = ("default", "workstation", "slurm")
CHANGED_FOR_CERTAIN_RULES = "set-resources: <rule>"


def entries(profile: dict[str, Any]) -> dict[str, list[str]]:
    """Keys of a profile, those of one kind of nested key together, with their different values."""
    found: dict[str, list[str]] = {}

    def add(key: str, value: Any) -> None:
        text = str(value).strip("'") if not isinstance(value, bool) else str(value).lower()
        values = found.setdefault(key, [])
        values += [text] * (text not in values)

    for key, value in profile.items():
        if key == "set-resources":
            for resources in value.values():
                for name, setting in resources.items():
                    add(f"{CHANGED_FOR_CERTAIN_RULES}: {name}", setting)
        elif isinstance(value, dict):
            for name, setting in value.items():
                add(f"{key}: {name}", setting)
        elif isinstance(value, list):
            for item in value:
                add(f"{key}: {item.partition('=')[0]}", item.partition("=")[2])
        else:
            add(key, value)
    return found


def documented(page: str, profile: str) -> dict[str, list[str]]:
    """Keys and values in the table below a profile's heading; a line that explains several keys has one value for each."""
    section = page.partition(f"\n## {profile}\n")[2].partition("\n## ")[0]
    found: dict[str, list[str]] = {}
    for keys, values, why in re.findall(r"^\| (`.*?) \| (.*?) \| (.*) \|$", section, flags=re.MULTILINE):
        assert why.strip(), keys
        names, told = re.findall(r"`([^`]+)`", keys), [value.strip("` ") for value in values.split(", ")]
        prefix = names[0].rpartition(": ")[0]
        names = [names[0], *(f"{prefix}: {name}" for name in names[1:])]
        found |= {names[0]: told} if len(names) == 1 else {name: [value] for name, value in zip(names, told, strict=True)}
    return found


@pytest.mark.parametrize("profile", PROFILES)
def test_every_key_is_explained_with_its_value(repository: Path, profile: str) -> None:
    config = yaml.safe_load((repository / "profiles" / profile / "config.yaml").read_text())
    assert documented((repository / "profiles" / "README.md").read_text(), profile) == entries(config)


def test_there_are_no_other_profiles_and_the_one_that_wins_over_all_says_nothing_of_machines(repository: Path) -> None:
    assert {path.name for path in (repository / "profiles").iterdir() if path.is_dir()} == set(PROFILES)
    default = yaml.safe_load((repository / "profiles" / "default" / "config.yaml").read_text())
    assert set(default) == {"nolock", "rerun-incomplete"}


def test_the_gpu_rules_and_no_others_go_to_the_gpu_partition(repository: Path) -> None:
    text = "\n".join(path.read_text() for path in sorted((repository / "workflow" / "rules").rglob("*.smk")))
    blocks = re.split(r"^(?=rule \w+:|use rule )", text, flags=re.MULTILINE)[1:]
    rules = {match[1]: block for block in blocks if (match := re.match(r"rule (\w+):", block))}
    asking = {name for name, block in rules.items() if re.search(r"^        gpu=", block, flags=re.MULTILINE)}
    heirs = re.findall(r"^use rule (\w+) as (\w+) with:", text, flags=re.MULTILINE)
    asking |= {heir for rule, heir in heirs if rule in asking}
    changed = yaml.safe_load((repository / "profiles" / "slurm" / "config.yaml").read_text())["set-resources"]
    assert {rule for rule, resources in changed.items() if "gpu_model" in resources} == asking == set(changed)
    assert {resources["slurm_partition"] for resources in changed.values()} == {"gpu"}
    for rule, heir in heirs:
        assert changed.get(heir) == changed.get(rule), "a rule that is used again asks for as much"
