"""Configuration check and the one helper that the rules share; no rules here."""

import json
import os

from d2rnet.settings import validate

validate(config, source="config.yaml with its overlays")
# Rules call ``python -m d2rnet``. The Python is the one that runs Snakemake, whether or not its environment is activated; a
# conda environment of the rule goes before it. The package reaches them from this checkout, in every environment.
os.environ.update(
    PATH=os.pathsep.join([str(Path(sys.executable).parent), *os.get_exec_path()])
)
shell.prefix(
    f"set -euo pipefail; export PYTHONPATH='{workflow.basedir}/src':$(printenv PYTHONPATH || true); "
)


def settings(section, only=None):
    """Return a section of the configuration as JSON for ``--settings``; ``only`` keeps some of its keys.

    A rule gets just the keys that decide its result, so that changing another key never runs it again.
    """
    value = config
    for key in section.split("."):
        value = value[key]
    if only:
        value = {key: value[key] for key in only}
    return json.dumps(value, sort_keys=True)
