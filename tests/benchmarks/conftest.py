"""Benchmarks are programs beside the package; what they share is tested here."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[2] / "benchmarks"))
