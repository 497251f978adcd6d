"""Inputs that once failed under the fuzzer, and its seeds, are answered; the fuzzer itself finds a planted mistake."""

import importlib.util
from pathlib import Path

import fuzz_targets
import pytest

HERE = Path(__file__).parent
KNOWN = [
    pytest.param(target, data, id=f"{target}-{name}")
    for target in fuzz_targets.TARGETS
    for name, data in [
        *((f"seed{number}", seed) for number, seed in enumerate(fuzz_targets.SEEDS[target])),
        *((path.stem, path.read_bytes()) for path in sorted((HERE / "regressions" / target).glob("*.bin"))),
    ]
]


@pytest.mark.parametrize(("target", "data"), KNOWN)
def test_known_inputs(target, data):
    fuzz_targets.TARGETS[target](data)


def test_targets_notice_what_must_not_be(monkeypatch):
    monkeypatch.setattr(fuzz_targets, "extract_section", lambda text, wanted: " two  blanks ")
    with pytest.raises(AssertionError):
        fuzz_targets.report_sections(b"FINDINGS: clear.")
    monkeypatch.setattr(fuzz_targets, "load_annotation", lambda path: {}["missing"])
    with pytest.raises(KeyError):
        fuzz_targets.annotation(b"{}")


@pytest.mark.slow
def test_fuzzer_runs(monkeypatch, tmp_path):
    spec = importlib.util.spec_from_file_location("fuzz_run", HERE / "run.py")
    run = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(run)
    if not run.is_installed():
        pytest.skip(run.REMEDY)
    monkeypatch.setattr(run, "REGRESSIONS", tmp_path)
    result = run.fuzz("report_sections", fuzz_targets.SEEDS["report_sections"], 3)
    assert result.inputs > 100 and result.branches > 0 and result.failed == []
