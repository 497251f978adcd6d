"""Write ``envs/<rule>.yaml`` from the extras of pyproject.toml, and envs/constraints.txt from what is installed.

``make envs`` writes the conda environment of every rule; ``make constraints`` writes the pins, and keeps those of packages
that are not installed. A rule's packages come from conda-forge under the names in CONDA_NAMES; what conda-forge lacks is
taken from the Python index at the version pinned in constraints.txt. A test keeps files and generator in step. That the specs
can be solved together is not checked here: it needs conda-forge itself.
"""

import argparse
import re
import sys
import tomllib
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path

ENVS = Path(__file__).resolve().parent
ROOT = ENVS.parent
CONSTRAINTS = ENVS / "constraints.txt"

# Rule -> extras of pyproject.toml it needs beyond the project's own dependencies.
EXTRAS: dict[str, tuple[str, ...]] = {
    "make_demo_cohort": ("data",),
    "verify_inputs": ("data",),
    "convert_images_shard": ("data",),
    "convert_labelled": ("data",),
    "convert_unlabelled": ("data",),
    "train_detector": ("detector",),
    "evaluate_detector": ("detector", "evaluation"),
    "predict_boxes_shard": ("detector",),
    "predict_boxes": ("detector",),
    "calibrate_thresholds": ("detector", "evaluation"),
    "fit_thresholds": (),
    "build_annotation": (),
    "build_vocabulary": (),
    "train_report_model": ("data", "report", "text-encoder"),
    "describe_reading": ("data",),
    "generate_reports_shard": ("data", "report", "text-encoder"),  # a vision transformer is of transformers, too
    "generate_reports": ("data", "report"),
    "retrieve_reports": ("data", "report", "text-encoder", "evaluation"),
    "evaluate_reports": ("evaluation",),
    "render_gallery": ("data", "evaluation"),
    "summarize": (),
    "draw_figures": ("data", "evaluation"),
    "oracle_annotation": (),
    "ablation": ("evaluation",),
    "make_ct_demo_cohort": ("data", "ct"),
    "verify_ct_inputs": ("data", "ct"),
    "convert_ct_shard": ("data", "ct"),
    "convert_ct": ("data", "ct"),
    "build_ct_annotation": ("data", "ct"),
    "train_structures": ("data", "ct", "ct-encoders", "report", "text-encoder"),
    "evaluate_structures": ("data", "ct", "ct-encoders", "report", "text-encoder", "evaluation"),
    "retrieve_ct_reports": ("data", "ct", "report"),
    "summarize_ct": ("data", "ct", "evaluation"),
    "draw_ct_figures": ("data", "evaluation"),
    "ct_ablation": ("data", "ct", "evaluation"),
    "evaluate_ct_reports": ("data", "ct", "report", "text-encoder", "evaluation"),  # RadBERT
    "render_ct_gallery": ("data", "ct", "evaluation"),
    "describe_ct_reading": ("data",),
    "extract_ct_features_shard": ("data", "ct", "ct-encoders", "report"),
    "extract_ct_features": ("data", "ct", "report"),
    "build_ct_vocabulary": (),
    "train_ct_report_model": ("data", "ct", "report", "llm"),
    "generate_ct_reports_shard": ("data", "ct", "report", "llm"),
    "generate_ct_reports": ("data", "ct", "report"),
}

# Not Python packages, or not on the Python index: conda specs by extra or by rule.
CONDA_ONLY = {
    "detector": "detectron2 =0.6",
    **dict.fromkeys(("evaluate_reports", "evaluate_ct_reports", "ablation", "ct_ablation"), "openjdk >=17"),  # METEOR
}

# Name on the Python index -> name on conda-forge, where they differ.
CONDA_NAMES = {
    "torch": "pytorch",
    "opencv-python-headless": "py-opencv",
    "matplotlib": "matplotlib-base",
    "isal": "python-isal",
}

# Not on conda-forge.
PIP_ONLY = frozenset({"ensemble-boxes"})

# Not part of an environment: the project itself, detectron2 (envs/detectron2.txt), and what only a developer adds.
NOT_PINNED = frozenset({"d2rnet", "detectron2", "sal-detectron2"})


def main() -> None:
    """Write every environment file, or the pins."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--constraints", action="store_true", help="write envs/constraints.txt from this Python's packages")
    if parser.parse_args().constraints:
        kept = pins_of_absent(installed_versions())
        CONSTRAINTS.write_text(constraints_text(), encoding="utf-8")
        if kept:
            print(
                f"{CONSTRAINTS.name}: not installed here, so kept as they are: {', '.join(kept)}. Remove by hand what no "
                "extra of pyproject.toml needs any more."
            )
        return
    wanted = {f"{rule}.yaml": environment_text(rule) for rule in EXTRAS}
    for path in ENVS.glob("*.yaml"):
        if path.name not in wanted:
            path.unlink()
    for name, text in wanted.items():
        (ENVS / name).write_text(text, encoding="utf-8")


def environment_text(rule: str) -> str:
    """Return the conda environment file of a rule.

    Raises:
        KeyError: the rule is not in EXTRAS, or a package that comes by pip is not pinned in constraints.txt.
    """
    conda, pip = specs(rule)
    lines = [
        "# Written by 'make envs' from pyproject.toml; do not edit.",  # no rule name: Snakemake shares files of equal content
        "channels:",
        "  - conda-forge",
        "  - nodefaults",
        "dependencies:",
        *(f"  - {spec}" for spec in conda),
    ]
    if pip:
        lines += ["  - pip", "  - pip:", *(f"      - {spec}" for spec in pip)]
    return "\n".join(lines) + "\n"


def specs(rule: str) -> tuple[list[str], list[str]]:
    """Return the conda specs and the pip specs of a rule."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    pins = dict(read_pins())
    conda = [f"python {project['requires-python']}"]
    pip = []
    extras = EXTRAS[rule]
    required = [*project["dependencies"], *(item for extra in extras for item in project["optional-dependencies"][extra])]
    for requirement in dict.fromkeys(required):
        name, versions = split_requirement(requirement)
        if name in PIP_ONLY:
            pip.append(f"{name}=={pins[name]}")
        else:
            conda.append(f"{CONDA_NAMES.get(name, name)} {versions}".strip())
    conda += [CONDA_ONLY[key] for key in (*extras, rule) if key in CONDA_ONLY]
    return list(dict.fromkeys(conda)), pip


def split_requirement(requirement: str) -> tuple[str, str]:
    """Split ``"name>=1,<2"`` into name and versions.

    Raises:
        ValueError: the requirement has extras, an address or a marker, which conda specs cannot carry.
    """
    match = re.fullmatch(r"([A-Za-z0-9._-]+)\s*([<>=!~][^;@\[\]]*)?", requirement)
    if match is None:
        raise ValueError(f"pyproject.toml: requirement '{requirement}': expected a name with version bounds only.")
    return match[1], (match[2] or "").replace(" ", "")


def read_pins() -> Iterator[tuple[str, str]]:
    """Yield (normalised name, version) of envs/constraints.txt."""
    for name, version in _written_pins():
        yield _normalised(name), version


def _written_pins() -> Iterator[tuple[str, str]]:
    """Yield (name as it is written, version) of envs/constraints.txt."""
    for line in CONSTRAINTS.read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            name, _, version = line.partition("==")
            yield name, version


def _normalised(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def installed_versions() -> dict[str, str]:
    """Return name -> version of every distribution installed in this environment."""
    found = metadata.distributions(path=[path for path in sys.path if "site-packages" in path])
    return {item.name: item.version for item in found}


def pins_of_absent(installed: Mapping[str, str]) -> dict[str, str]:
    """Return the pins of constraints.txt whose packages are not installed, as those of an extra that set-up leaves out."""
    known = set(map(_normalised, installed))
    return {name: version for name, version in _written_pins() if _normalised(name) not in known}


def constraints_text() -> str:
    """Return constraints.txt: its own heading, then what is installed in this environment and the pins of what is not."""
    heading = [line for line in CONSTRAINTS.read_text(encoding="utf-8").splitlines() if line.startswith("#")]
    installed = installed_versions()
    versions = installed | pins_of_absent(installed)
    pins = [f"{name}=={versions[name]}" for name in sorted(versions, key=str.lower) if name not in NOT_PINNED]
    return "\n".join([*heading, *pins]) + "\n"


if __name__ == "__main__":
    main()
