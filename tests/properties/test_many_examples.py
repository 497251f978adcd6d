"""All properties of this folder with many more examples than ``make test`` has time for."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from property_settings import VARIABLE

EXAMPLES = 3000


@pytest.mark.slow
def test_every_property_holds_for_many_examples():
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "--quiet", "--color=no", "--hypothesis-show-statistics", str(Path(__file__).parent)],
        env=os.environ | {VARIABLE: str(EXAMPLES)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-6000:]
    assert f"settings.max_examples={EXAMPLES}" in done.stdout
