"""Runs of the tiny workflow: on this machine alone, or through the shipped profile on a private cluster."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml
from slurm_cluster import ACCOUNT, GPU_MODEL, Cluster, Job

from d2rnet.config import Config
from d2rnet.settings import merge, read_overlay

REPOSITORY = Path(__file__).resolve().parents[2]
PROFILE = REPOSITORY / "profiles" / "slurm"
TINY = REPOSITORY / "workflow" / "presets" / "cxr" / "tiny.yaml"
ONE_CORE = {"device": "cpu", "gpus": 1, "threads": 1, "workers": 1}
# The shipped interval would make a run of some seconds a job last ten minutes; a prompt cluster answers when a job has ended.
QUICK = ("--slurm-init-seconds-before-status-checks", "1", "--latency-wait", "20")
LOCAL_SECONDS = 1800


def write_overlay(directory: Path, runtime: dict[str, Any], **sections: Any) -> None:
    """Write what a run changes of the tiny preset."""
    directory.mkdir(parents=True, exist_ok=True)
    overlay = {"runtime": ONE_CORE | runtime, **sections}
    (directory / "overlay.yaml").write_text(yaml.safe_dump(overlay))


def copy_state(source: Path, directory: Path, *names: str) -> None:
    """Copy folders of a run, times kept, and Snakemake's records: what is copied need not be made again."""
    for name in (*names, ".snakemake/metadata"):
        shutil.copytree(source / name, directory / name, symlinks=True)


def command(directory: Path, seconds: int, *arguments: str) -> list[str]:
    """Snakemake on the tiny preset and the overlay of a directory; it is killed after so many seconds."""
    words = ["timeout", "-k", "10", str(seconds), sys.executable, "-m", "snakemake", "-s", str(REPOSITORY / "Snakefile")]
    return [*words, "-d", str(directory), *arguments, "--configfile", str(TINY), str(directory / "overlay.yaml")]


def run_locally(directory: Path, *targets: str, cores: int = 2) -> None:
    """Make targets, or everything, without the cluster."""
    words = command(directory, LOCAL_SECONDS, "--cores", str(cores), *targets)
    done = subprocess.run(words, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr[-3000:]


def start(cluster: Cluster, directory: Path, seconds: int, *arguments: str) -> subprocess.Popen[str]:
    """Start Snakemake with the shipped profile; its output goes to snakemake.log in the directory."""
    with (directory / "snakemake.log").open("w") as log:
        return subprocess.Popen(
            command(directory, seconds, "--profile", str(PROFILE), *arguments),
            stdout=log,
            stderr=subprocess.STDOUT,
            text=True,
            env=cluster.environment | {"OMP_NUM_THREADS": "1"},
        )


def said(directory: Path) -> str:
    """What Snakemake said at the end, for a message of failure."""
    return (directory / "snakemake.log").read_text()[-3000:]


def assert_submitted_as_configured(cluster: Cluster, directory: Path, jobs: list[Job]) -> None:
    """Every job of a run was submitted once, with the resources that the profile or else the rule's text asks for."""
    profile = yaml.safe_load((PROFILE / "config.yaml").read_text())
    defaults = profile["default-resources"]
    config = Config.read(merge(read_overlay(TINY), read_overlay(directory / "overlay.yaml")))
    submitted = cluster.submissions(directory)
    assert sorted(map(rule_of, submitted)) == sorted(job.rule for job in jobs)
    for words in submitted:
        rule = rule_of(words)
        asked = profile["set-resources"].get(rule, {})
        assert option(words, "-A") == ACCOUNT == defaults["slurm_account"]
        assert option(words, "-p") == asked.get("slurm_partition", defaults["slurm_partition"])
        assert option(words, "--mem") == at_first(asked.get("mem_mb") or in_rule(rule, "mem_mb"), config), rule
        assert option(words, "-t") == at_first(asked.get("runtime") or in_rule(rule, "runtime"), config), rule
        assert any(word.startswith(f"--gpus={GPU_MODEL}:") for word in words) == ("gpu_model" in asked), rule
        assert {"--cpus-per-task=1", "--requeue", "--signal=TERM@300"} <= set(words), rule


def rule_of(words: list[str]) -> str:
    """Name of the rule in a recorded submission."""
    return option(words, "--comment").removeprefix("rule_").partition("_wildcards_")[0]


def option(words: list[str], name: str) -> str:
    """The value after an option of sbatch."""
    return words[words.index(name) + 1]


def at_first(value: Any, config: Config) -> str:
    """What a resource is at the first attempt: a number, or the text of an expression of the profile or a rule."""
    known = {"attempt": 1, "growing": int, "CONFIG": config}
    return str(eval(str(value), known))


def in_rule(rule: str, name: str) -> str:
    """A resource as the text of a rule has it."""
    texts = "\n".join(path.read_text() for path in (REPOSITORY / "workflow" / "rules").rglob("*.smk"))
    block = re.split(rf"^rule {rule}:", texts, flags=re.MULTILINE)[1].split("\nrule ")[0]
    found = re.search(rf"^        {name}=(.*),$", block, flags=re.MULTILINE)
    assert found is not None, f"rule {rule} has no {name}"
    return found[1]
