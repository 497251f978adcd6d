"""Configuration check and the helpers that the rules share; no rules here."""

import contextlib
import json
import os
import shlex

from snakemake.settings.types import DeploymentMethod

from d2rnet.cli.commands import COMMANDS
from d2rnet.cli.foreign_resources import check_resources, settings_of
from d2rnet.config import Config, check_order
from d2rnet.errors import D2RNetError
from d2rnet.files.atomic import write_text
from d2rnet.files.documents import read_json
from d2rnet.files.hashes import fingerprint
from d2rnet.settings import merge, read_overlay


@contextlib.contextmanager
def explained():
    """End with the message of an error that the user can act on, not with Snakemake's places in the code below it."""
    try:
        yield
    except (D2RNetError, FileNotFoundError) as error:
        sys.exit(str(error))


with explained():
    # Snakemake keeps the last of two equal keys; read_overlay refuses them.
    OVERLAYS = {
        file: read_overlay(file)
        for file in map(Path, workflow.configfiles)
        if file.is_file()
    }
    OVERLAYS.pop(Path(workflow.basedir) / "config.yaml", None)
    check_order(OVERLAYS, Path(workflow.basedir) / "workflow" / "presets")
    CONFIG = Config.read(config, source=" with ".join(map(str, workflow.configfiles)))
    if workflow.is_main_process:
        check_resources(Path.cwd(), CONFIG)
DEVICE = CONFIG.runtime.device_of_jobs
# stage -> its number of shards and fingerprint of what decides it; of the last run, whose results are beside it
SHARDS = Path("results/shards.json")
# ... and of this one
SHARDS_NOW = {}
# Rules call ``python -m d2rnet``. The Python is the one that runs Snakemake, whether or not its environment is activated; a
# conda environment of the rule goes before it. The package reaches them from this checkout, in every environment, and nothing
# is imported from the working directory, where a file may be called random.py (PYTHONSAFEPATH; no empty part in PYTHONPATH).
os.environ.update(
    PATH=os.pathsep.join([str(Path(sys.executable).parent), *os.get_exec_path()])
)
shell.prefix(
    "set -euo pipefail; export PYTHONSAFEPATH=1"
    f" PYTHONPATH={shlex.quote(f'{workflow.basedir}/src')}$(printenv PYTHONPATH | sed 's/^./:&/' || true); "
)


def check_container(image):
    """Let jobs see this checkout inside the image that they run in, and say what is missing before the first of them.

    Apptainer shows a job its working directory and little else; without the checkout, Python would take the d2rnet that the
    image holds, which may be another.

    Args:
        image: runtime.container.
    """
    deployment = workflow.deployment_settings
    if DeploymentMethod.APPTAINER not in deployment.deployment_method:
        return
    if not image:
        sys.exit(
            "--sdm apptainer: runtime.container names no image; expected an image file or an address, docker://..."
        )
    if "://" not in image and not Path(image).exists():
        sys.exit(
            f"runtime.container: {image}: no such file in {Path.cwd()}. Build it or correct the path: docs/how-to/containers.md"
        )
    bind = f"--bind {shlex.quote(str(workflow.basedir))}"
    if bind not in deployment.apptainer_args:
        deployment.apptainer_args = f"{deployment.apptainer_args} {bind}".strip()


check_container(CONFIG.runtime.container)


# Heeded with --sdm apptainer alone.
container: CONFIG.runtime.container or None


def settings_file(command, value=None):
    """Write the settings that a sub-command reads to a file that is named after them, and return its path.

    The path is a parameter of the rule: it changes with the settings of this command and with no others. ``value`` is given
    where they are not those of the configuration.
    """
    if value is None:
        value = settings_of(CONFIG, command)
    path = f"logs/settings/{command}-{fingerprint(value)}.json"
    if not Path(path).exists():
        write_text(path, json.dumps(value, indent=1, ensure_ascii=False) + "\n")
    return path


def selected(*keys):
    """Return the configuration with some dotted keys alone."""
    part = {}
    for key in keys:
        value = CONFIG.to_json()
        for name in key.split("."):
            value = value[name]
        for name in reversed(key.split(".")):
            value = {name: value}
        part = merge(part, value)
    return part


def runtime_options(command):
    """Return the options of a sub-command that change no result; as a resource of the rule they never run it again."""
    section = COMMANDS[command].runtime_class()
    keys = section.model_fields if section else ()
    values = CONFIG.runtime.to_json()
    return " ".join(f"--{key.replace('_', '-')} {values[key]}" for key in keys)


def shards_of(stage, joined, *settings):
    """Return how many shards a stage works in: as many as its joined result was made of, else what the configuration says.

    So another number of shards plans no job. It counts from when the joined result is gone, or a setting that decides it has
    changed. A job that parses this file anew, on another machine, takes the number that its run began with.

    Args:
        stage: name before _shards in section runtime.
        joined: result that the shards are joined to.
        settings: sections that decide it.
    """
    with explained():
        last = read_json(SHARDS).get(stage) if SHARDS.exists() else None
    number = getattr(CONFIG.runtime, f"{stage}_shards")
    now = {
        "shards": number,
        "settings": fingerprint([section.to_json() for section in settings]),
    }
    same = last and last["settings"] == now["settings"] and Path(joined).exists()
    SHARDS_NOW[stage] = last if same or (last and not workflow.is_main_process) else now
    return SHARDS_NOW[stage]["shards"]


def shard_options(wildcards):
    """Return the options that say which shard a job does."""
    return "--shard {} --shards {}".format(*wildcards.scatteritem.split("-of-"))


def images_looked_at(wildcards):
    """Return the options that say which images a job looks at: its shard of those of the views that get boxes."""
    views = (f" --view {shlex.quote(view)}" for view in CONFIG.cxr.annotation.box_views)
    return shard_options(wildcards) + "".join(views)


def shipped_or_own(path):
    """Return a file of the working directory, or else the one of that name that the workflow brings."""
    return path if os.path.isfile(path) else os.path.join(workflow.basedir, path)


def option(name, files):
    """Return an option with the files that it takes, "" where there are none."""
    return f"--{name} {' '.join(map(shlex.quote, files))}" if files else ""


def backbone_files(report):
    """Return the files that the image network of section cxr.report starts from: the detector's, those of a path, or none."""
    given = report.model.backbone_weights
    detector = rules.train_detector.output
    if given == "detector":
        return [detector.ema_teacher, detector.config]
    return [given] if given else []


def detector_option(report):
    """Return the option that names the detector's weights where the image network starts from them."""
    starts = report.model.backbone_weights == "detector"
    return option("detector", backbone_files(report)[:1] if starts else [])


def settings_of_cell(wildcards):
    """Return section cxr.report as one cell of the ablation trains with it."""
    seed = int(wildcards.seed)
    return cell_settings(CONFIG.cxr.report, ARMS, arm=wildcards.arm, seed=seed)


def in_report(folder, files):
    """Return files as outputs named after them, with the captions of those names in the Snakemake report.

    Args:
        folder: where the files are, <results or resources>/<wing>/<rule>.
        files: file -> its category and label.
    """
    wing = Path(folder).parts[1]
    return {
        Path(file).stem: report(
            f"{folder}/{file}",
            caption=f"../../report/{wing}/{Path(file).stem}.rst",
            category=category,
            labels={"what": label},
        )
        for file, (category, label) in files.items()
    }


def growing(mem_mb):
    """Return the memory of a job in MB: so much at the first attempt, as much again at each further one."""
    return lambda wildcards, attempt: mem_mb * attempt


def language_model_mb():
    """Return what a process holds of the language model of chest CT while it reads it, MB: 0 without one."""
    settings = CONFIG.ct.report.model.llm
    files = Path(settings.weights or os.devnull).glob("*.safetensors")
    wider = 2 if settings.dtype == "float32" else 1  # its files hold 16 bits a number
    return wider * sum(file.stat().st_size for file in files) // 1_000_000
