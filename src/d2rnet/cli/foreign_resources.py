"""Resources that another run made: copied or linked here to save hours of conversion, with settings that may not be these.

Snakemake runs a rule again when its settings change, but of files that it did not make itself it knows nothing. So the run
records among such resources are compared with the configuration, before anything reads them.

Reads: the run records below ``resources``, and Snakemake's. Writes nothing.
"""

from pathlib import Path
from typing import Any

from d2rnet.cli.commands import COMMANDS
from d2rnet.cli.given_settings import part_of
from d2rnet.cli.run_state import made_here
from d2rnet.config import Config
from d2rnet.errors import ConfigError, D2RNetError
from d2rnet.files.comparison import differences, first_few
from d2rnet.files.documents import read_json

RESOURCES = "resources"
# Where its rules leave run records; a search through all of it would pass 377,110 images.
RECORDS = ("*/*/run.json", "*/convert_images/*/*.run.json")


def settings_of(config: Config, command: str) -> dict[str, Any]:
    """Return the settings of a configuration that a sub-command reads, as JSON values."""
    section = COMMANDS[command].settings_class()
    assert section is not None, command
    return part_of(config.to_json(), section)


def check_resources(folder: Path, config: Config) -> None:
    """Compare the resources that Snakemake did not make in this working directory with the configuration.

    Where the sources lie is not compared, nor keys that the version which made them did not have.

    Args:
        folder: working directory of the workflow.
        config: its configuration.

    Raises:
        ConfigError: resources were made with other settings; names record and keys.
    """
    own = {path.parent for path in made_here(folder)}
    records = [path for pattern in RECORDS for path in (folder / RESOURCES).glob(pattern)]
    for path in sorted(records):
        if path.parent.relative_to(folder) not in own:
            _check_record(path, config)


def _check_record(path: Path, config: Config) -> None:
    """Compare one run record; what cannot be read is left to who reads what lies beside it."""
    try:
        record = read_json(path)
        command, made = record["command"], record["settings"]
        now = settings_of(config, command) if COMMANDS[command].section else {}
    except (D2RNetError, OSError, KeyError, TypeError):
        return
    if now.get("enabled") is False:  # a demo cohort that nothing reads now
        return
    place = getattr(COMMANDS[command].settings_class(), "place", "")
    differing = [line for line in differences(made, now, place) if not _is_elsewhere(line)]
    if differing:
        raise ConfigError(
            f"{path}: {path.parent.name} was made by {command} in another run, with other settings than these: "
            f"{first_few(differing)}. Remove the copy or the link, so that it is made anew, or take its settings."
        )


def _is_elsewhere(line: str) -> bool:
    """Whether a difference says where sources lie, or is of a key that one version alone has."""
    return "without a value" in line or line.partition(" ")[0].endswith("root")
