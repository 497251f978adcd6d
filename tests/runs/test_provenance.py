"""Which commit a run record names: that of the checkout, in an image that of its build, else none."""

from pathlib import Path

import pytest

from d2rnet.runs import provenance


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project's folder that no git checkout is around."""
    monkeypatch.setattr(provenance, "REPOSITORY", tmp_path)
    monkeypatch.setattr(provenance, "_git", lambda *arguments: None)
    return tmp_path


def test_an_image_names_the_commit_that_it_was_built_of(project: Path) -> None:
    (project / "COMMIT").write_text("0123abc\n")
    code = provenance.code_version()
    assert code["commit"] == "0123abc" and code["dirty"] is None


@pytest.mark.parametrize("text", [None, "\n"], ids=["no file", "empty file"])
def test_without_either_the_commit_is_unknown(project: Path, text: str | None) -> None:
    if text is not None:
        (project / "COMMIT").write_text(text)
    assert provenance.code_version()["commit"] is None


def test_a_checkout_goes_before_the_file(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (project / "COMMIT").write_text("of the image\n")
    monkeypatch.setattr(provenance, "_git", lambda *arguments: "of git" if arguments[0] == "rev-parse" else "")
    assert provenance.code_version() == {"d2rnet": provenance.d2rnet.__version__, "commit": "of git", "dirty": False}
