"""The extra 'read' alone reads a CT and, with detectron2, a radiograph: the wheel in a fresh environment.

PyTorch comes by links from the environment of the tests, in place of gigabytes of download; everything else comes by pip.
"""

import json
import os
import re
import subprocess
import sys
import sysconfig
from pathlib import Path

import ct_report_samples as ct_samples
import pytest
from reading_samples import FILES

pytestmark = pytest.mark.slow
LINKED = re.compile(r"(torch|torchgen|torchvision|functorch|triton|nvidia|cuda)([-_.].*)?")
NOT_NEEDED = ("snakemake", "pandas", "tensorboard", "pycocoevalcap", "ensemble-boxes", "d2rnet[data]")


def call(*words: object, cwd: Path) -> str:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    done = subprocess.run(
        [str(word) for word in words], cwd=cwd, env=environment, capture_output=True, text=True, timeout=1500
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-6000:]
    return done.stdout


@pytest.fixture(scope="module")
def place(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an environment that has the wheel and its extra 'read'."""
    folder = tmp_path_factory.mktemp("fresh")
    call(sys.executable, "-m", "venv", "venv", cwd=folder)
    packages = folder / "venv/lib" / f"python{sysconfig.get_python_version()}" / "site-packages"
    for path in Path(sysconfig.get_path("purelib")).iterdir():
        if LINKED.fullmatch(path.name):
            (packages / path.name).symlink_to(path)
    call("venv/bin/python", "-m", "pip", "wheel", "-q", "--no-deps", "-w", "wheel", repository, cwd=folder)
    (wheel,) = (folder / "wheel").iterdir()
    call("venv/bin/python", "-m", "pip", "install", "-q", f"{wheel}[read]", cwd=folder)
    return folder


@pytest.fixture
def detectron2(place: Path, repository: Path) -> None:
    """Install detectron2, as docs/how-to/install.md says."""
    page = (repository / "docs/how-to/install.md").read_text(encoding="utf-8")
    (command,) = re.findall(r"^python -m pip install --no-deps --only-binary.*$", page, flags=re.MULTILINE)
    call("bash", "-c", f"PATH=venv/bin:$PATH; {command}", cwd=place)


def test_nothing_of_workflow_and_data_stage_comes_along(place: Path) -> None:
    installed = {one["name"].lower() for one in json.loads(call("venv/bin/pip", "list", "--format=json", cwd=place))}
    assert "d2rnet" in installed and not installed & set(NOT_NEEDED)


def test_ct_is_read_without_detectron2(place: Path, tmp_path: Path) -> None:
    import nibabel
    import numpy as np
    from ct_reading_samples import drawn_volume

    cohort = ct_samples.write_ct_cohort(tmp_path / "cohort")
    model = ct_samples.train(cohort, ct_samples.extract(cohort, tmp_path / "features"), tmp_path / "report")
    ct_samples.describe(model)
    volume = drawn_volume()
    z, y, x = volume.spacing_mm
    nibabel.save(
        nibabel.Nifti1Image(np.ascontiguousarray(volume.hu.transpose(2, 1, 0)), np.diag([-x, -y, z, 1.0])), tmp_path / "c.nii"
    )
    models = ("--structures", cohort / "structures", "--ct-report-model", model)
    call(place / "venv/bin/d2rnet", "read", tmp_path / "c.nii", *models, cwd=tmp_path)
    assert json.loads((tmp_path / "readings/c.json").read_text())["findings"]


def test_radiograph_is_read_by_command_and_by_python(
    place: Path, detectron2: None, finished_run: Path, tmp_path: Path
) -> None:
    results = finished_run / "results/cxr"
    image = finished_run / "images" / FILES["scan"]
    models = ("--detector", results / "train_detector", "--report-model", results / "train_report_model")
    call(place / "venv/bin/d2rnet", "read", image, *models, "--coco", cwd=tmp_path)
    findings = json.loads((tmp_path / "readings/scan.json").read_text())["findings"]
    code = "import sys, d2rnet; print(d2rnet.load_models(*sys.argv[1:3]).read(sys.argv[3]).findings)"
    assert call(place / "venv/bin/python", "-c", code, *models[1::2], image, cwd=tmp_path).strip() == findings != ""
