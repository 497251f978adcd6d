"""Configuration check and the helpers that the rules share; no rules here."""

import json
import os
import shlex

from d2rnet.settings import validate

validate(config, source="config.yaml with its overlays")
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


def settings(section, only=None, without=()):
    """Return a section of the configuration as JSON for ``--settings``.

    ``only`` keeps some of its keys, ``without`` drops some. A rule gets just the keys that decide its result, so that changing
    another key never runs it again.
    """
    value = config
    for key in section.split("."):
        value = value[key]
    kept = {key: value[key] for key in only or value if key not in without}
    return json.dumps(kept, sort_keys=True)


def growing(mem_mb):
    """Return the memory of a job in MB: so much at the first attempt, as much again at each further one."""
    return lambda wildcards, attempt: mem_mb * attempt


onsuccess:
    if config["runtime"]["delete_after_success"]:
        shell(
            f"python -m d2rnet clean --kinds {','.join(config['runtime']['delete_after_success'])} --delete"
        )
