"""doctor: each line says what is there or what to do; the exit code says whether anything required is missing."""

import importlib
import json
import subprocess
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from types import ModuleType

import pytest

from d2rnet.cli import doctor as doctor_module
from d2rnet.cli.doctor import Finding, check_codecs, check_ct, check_python, check_scoring, check_tools, doctor
from d2rnet.cli.entry import main
from d2rnet.settings import read_overlay


def test_line_of_a_finding() -> None:
    assert str(Finding("git", "/usr/bin/git")) == "ok       git            /usr/bin/git"
    missing = Finding("torch", "No module named 'torch'", ok=False, remedy="Run 'make setup'")
    assert str(missing) == "MISSING  torch          No module named 'torch'. Run 'make setup'."
    assert str(Finding("GPU", "none", ok=False, required=False, remedy="Use the CPU")).startswith("absent   GPU")


@pytest.mark.parametrize(
    ("finding", "code", "last_line"),
    [
        (Finding("a", "there"), 0, "everything required is there"),
        (Finding("a", "gone", ok=False, required=False, remedy="r"), 0, "everything required is there"),
        (Finding("a", "gone", ok=False, remedy="r"), 2, "missing: a"),
    ],
)
def test_exit_code(
    finding: Finding, code: int, last_line: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(doctor_module, "CHECKS", (lambda: iter([finding]),))
    assert doctor() == code
    assert capsys.readouterr().out.splitlines()[-1] == last_line


def test_json_says_the_same(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    found = [Finding("a", "there"), Finding("b", "gone", ok=False, remedy="pip install b")]
    monkeypatch.setattr(doctor_module, "CHECKS", (lambda: iter(found),))
    assert main(["doctor", "--json"]) == 2
    document = json.loads(capsys.readouterr().out)
    assert document.pop("code").keys() == {"d2rnet", "commit", "dirty"}
    b = {"name": "b", "found": "gone", "ok": False, "required": True, "remedy": "pip install b"}
    assert document == {
        "checks": [{"name": "a", "found": "there", "ok": True, "required": True, "remedy": ""}, b],
        "missing": ["b"],
    }


def test_command_line_passes_the_exit_code_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing_there() -> Iterator[Finding]:
        yield Finding("a", "gone", ok=False)

    monkeypatch.setattr(doctor_module, "CHECKS", (nothing_there,))
    assert main(["doctor"]) == 2


def test_unsupported_python(monkeypatch: pytest.MonkeyPatch) -> None:
    assert next(check_python()).ok
    monkeypatch.setattr("sys.version_info", (3, 10, 0))
    assert not next(check_python()).ok


def test_every_transfer_syntax_of_radiographs_can_be_decoded() -> None:
    findings = list(check_codecs())
    assert [finding.found for finding in findings if not finding.ok] == []
    assert len(findings) == 1 + len(doctor_module.TRANSFER_SYNTAXES)
    assert any(finding.found.startswith("JPEG 2000 Lossless: ") and "pylibjpeg" in finding.found for finding in findings)


def test_what_reads_chest_ct_is_required_and_its_encoders_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    assert [finding.found for finding in check_ct() if finding.required and not finding.ok] == []

    def gone(name: str) -> ModuleType:
        raise ImportError(f"No module named {name!r}")

    def absent(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(doctor_module.importlib, "import_module", gone)
    monkeypatch.setattr(doctor_module.metadata, "version", absent)
    found = list(check_ct())
    required = [finding for finding in found if finding.required]
    assert [finding.found for finding in required] == [
        f"No module named '{name}'" for name in ("nibabel", "SimpleITK", "isal")
    ]
    assert "pip install 'd2rnet[ct-encoders]'" in str(found[3]) and len(found) == 7 and not any(one.ok for one in found)


def test_missing_decoder_names_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = importlib.import_module("pydicom.pixels")

    class NoDecoder:
        is_available = False
        available_plugins = ()

    monkeypatch.setattr(pixels, "get_decoder", lambda uid: NoDecoder())
    lines = [str(finding) for finding in check_codecs()]
    assert "MISSING  DICOM codec    JPEG-LS Lossless: no decoder. pip install pylibjpeg-libjpeg." in lines


def test_missing_java_is_no_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    java = next(check_scoring())
    assert (java.ok, java.required) == (False, False)
    assert "METEOR will be 'not run'" in java.remedy and "default-jre-headless" in java.remedy


def test_missing_snakemake(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(doctor_module.metadata, "version", absent)
    assert str(next(check_tools())) == "MISSING  snakemake      not installed. Run 'make setup' in the project's folder."


class FakeDistribution(metadata.Distribution):
    """A distribution with a direct_url.json."""

    def __init__(self, url: str | None) -> None:
        self.url = url

    def read_text(self, filename: str) -> str | None:
        return {"METADATA": "Name: detectron2\nVersion: 0.6\n", "direct_url.json": self.url}.get(filename)

    def locate_file(self, path: object) -> Path:
        return Path("site-packages")


@pytest.mark.parametrize(
    ("name", "url", "expected"),
    [
        (
            "detectron2",
            '{"url": "https://example.org/d2", "vcs_info": {"commit_id": "abc1"}}',
            "from https://example.org/d2 commit abc1",
        ),
        ("sal-detectron2", None, "sources of facebookresearch/detectron2 commit a59f0563"),
        ("other", None, "no distribution (a folder on the path)"),
    ],
)
def test_origin_of_detectron2(
    name: str, url: str | None, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def distribution(wanted: str) -> FakeDistribution:
        if wanted != name:
            raise metadata.PackageNotFoundError(wanted)
        return FakeDistribution(url)

    def import_module(wanted: str) -> ModuleType:
        if wanted == "detectron2._C":
            raise ImportError(wanted)
        module = ModuleType(wanted)
        module.__file__ = str(tmp_path / "detectron2" / "__init__.py")
        module.__dict__["__version__"] = "0.6"
        return module

    monkeypatch.setattr(doctor_module.metadata, "distribution", distribution)
    monkeypatch.setattr(doctor_module.importlib, "import_module", import_module)
    origin = doctor_module.detectron2_origin()
    assert origin.startswith("detectron2 0.6; ")
    assert expected in origin
    assert "no compiled operators" in origin


def test_a_configuration_is_tried_on_this_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(doctor_module, "CHECKS", ())
    good = tmp_path / "good.yaml"
    good.write_text("runtime: {device: cpu}\n")
    assert main(["doctor", "--configfile", str(good)]) == 0
    shown = capsys.readouterr().out
    assert "ok       trainings, cxr weights, batches, cpu and limits fit" in shown
    assert "ok       trainings, ct  weights, batches, cpu and limits fit" in shown
    bad = tmp_path / "bad.yaml"
    bad.write_text("cxr: {detector: {model: {weights: /gone.pkl}}}\nct: {report: {features: {most_per_structure: 2}}}\n")
    assert main(["doctor", "--configfile", str(good), str(bad)]) == 2
    shown = capsys.readouterr().out
    assert "MISSING  trainings, cxr cxr.detector.model.weights: /gone.pkl: no such weight file.\n" in shown
    assert "MISSING  trainings, ct  ct.report.model.patches_per_structure: 4; the features hold 2" in shown


@pytest.mark.parametrize(
    ("encoding", "place", "given"), [("latin-1", "line 2, byte 38", "ISO-8859-1"), ("utf-16", "line 1, byte 0", "UTF-16")]
)
def test_a_configuration_in_another_encoding_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], encoding: str, place: str, given: str
) -> None:
    """Snakemake reads overlays before anything of ours can; its message names no file."""
    path = tmp_path / "my paths.yaml"
    path.write_bytes("cxr:\n {data: {labelled: {root: /r/stra\u00dfe}}}\n".encode(encoding))
    assert main(["doctor", "--configfile", str(path)]) == 2
    shown = capsys.readouterr().err
    assert f"{path}: {place} is not UTF-8; expected a UTF-8 YAML file." in shown
    command = shown.partition("for instance: ")[2].strip()
    assert command.startswith(f"iconv -f {given} ")
    subprocess.run(command, shell=True, check=True, cwd=tmp_path)
    assert read_overlay(tmp_path / "utf8.yaml") == {"cxr": {"data": {"labelled": {"root": "/r/straße"}}}}
