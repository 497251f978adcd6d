"""``d2rnet doctor``: what this machine has, what is missing, and what to do about it; of a run with ``--run``.

Nothing is imported at the top that an incomplete installation may lack; each check turns a failure into a line with a remedy.
"""

import importlib
import json as json_text
import os
import platform
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path

from d2rnet.cli.run_report import report_run
from d2rnet.errors import ToolError
from d2rnet.evaluation.meteor import find_jar, find_java
from d2rnet.exit_codes import ExitCode
from d2rnet.runs.provenance import code_version

SET_UP = "Run 'make setup' in the project's folder"
PYTHON_RANGE = ((3, 11), (3, 13))
WANTED_DISK_GB = 5
WANTED_MEMORY_GB = 8

# Distributions that carry detectron2 under another name -> what their sources are.
DETECTRON2_REPACKAGED = {"sal-detectron2": "sources of facebookresearch/detectron2 commit a59f0563 (2024-04-17)"}

# UID -> name and the distribution that decodes it (DICOM PS3.5, annex A).
TRANSFER_SYNTAXES = {
    "1.2.840.10008.1.2": ("Implicit VR Little Endian", "pydicom"),
    "1.2.840.10008.1.2.1": ("Explicit VR Little Endian", "pydicom"),
    "1.2.840.10008.1.2.1.99": ("Deflated Explicit VR Little Endian", "pydicom"),
    "1.2.840.10008.1.2.2": ("Explicit VR Big Endian", "pydicom"),
    "1.2.840.10008.1.2.5": ("RLE Lossless", "pylibjpeg-rle"),
    "1.2.840.10008.1.2.4.50": ("JPEG Baseline", "pylibjpeg-libjpeg"),
    "1.2.840.10008.1.2.4.51": ("JPEG Extended, 8 bit only", "pylibjpeg-libjpeg"),
    "1.2.840.10008.1.2.4.57": ("JPEG Lossless", "pylibjpeg-libjpeg"),
    "1.2.840.10008.1.2.4.70": ("JPEG Lossless SV1", "pylibjpeg-libjpeg"),
    "1.2.840.10008.1.2.4.80": ("JPEG-LS Lossless", "pylibjpeg-libjpeg"),
    "1.2.840.10008.1.2.4.81": ("JPEG-LS Near-lossless", "pylibjpeg-libjpeg"),
    "1.2.840.10008.1.2.4.90": ("JPEG 2000 Lossless", "pylibjpeg-openjpeg"),
    "1.2.840.10008.1.2.4.91": ("JPEG 2000", "pylibjpeg-openjpeg"),
}

# module that reads NIfTI, MetaImage and NRRD, or gzip -> its distribution
CT_READERS = {"nibabel": "nibabel", "SimpleITK": "SimpleITK", "isal": "isal"}
# distribution -> its extra in pyproject.toml, and what of the configuration asks for it (settings of chest CT)
CT_ENCODERS = {
    "monai": ("ct-encoders", "ct.structure_model.model.encoder.kind monai"),
    "dynamic-network-architectures": ("colipri", "ct.structure_model.model.encoder.kind colipri"),
    "transformers": ("text-encoder", "ct.structure_model.text.weights, and text encoders of the radiographs"),
    "peft": ("llm", "ct.report.model.llm.weights"),
}


@dataclass(frozen=True)
class Finding:
    """One line: what was looked for, what was found, and what to do if it is missing."""

    name: str
    found: str
    ok: bool = True
    required: bool = True
    remedy: str = ""

    def __str__(self) -> str:
        state = "ok" if self.ok else "MISSING" if self.required else "absent"
        return f"{state:<8} {self.name:<14} {self.found}" + ("" if self.ok or not self.remedy else f". {self.remedy}.")


def doctor(*, run: Path | None = None, configfile: Sequence[Path] = (), json: bool = False) -> ExitCode:
    """Print one line per check; REFUSED if anything required is missing.

    Args:
        run: look at the run in this folder instead (:mod:`d2rnet.cli.run_report`).
        configfile: configuration of a run; what its trainings need is tried, too.
        json: print one JSON document instead.

    Raises:
        D2RNetError: no workflow ever ran in that folder, or the configuration is not valid.
    """
    if run is not None:
        return report_run(run, as_json=json)
    code = code_version()
    trainings = list(check_trainings(configfile)) if configfile else []  # a configuration that is not valid is told first
    findings = [*(finding for check in CHECKS for finding in check()), *trainings]
    missing = [finding.name for finding in findings if finding.required and not finding.ok]
    if json:
        document = {"code": code, "checks": [asdict(finding) for finding in findings], "missing": missing}
        print(json_text.dumps(document, indent=2, ensure_ascii=False))
    else:
        print(f"d2rnet {code['d2rnet']}, commit {code['commit'] or 'unknown'}{' (changed)' if code['dirty'] else ''}")
        for finding in findings:
            print(finding)
        print(f"missing: {', '.join(missing)}" if missing else "everything required is there")
    return ExitCode.REFUSED if missing else ExitCode.DONE


def check_python() -> Iterator[Finding]:
    """Python's version and the platform."""
    version = sys.version_info[:2]
    yield Finding(
        "Python",
        f"{platform.python_version()}, {sys.executable}",
        PYTHON_RANGE[0] <= version <= PYTHON_RANGE[1],
        remedy="Use Python 3.11, 3.12 or 3.13",
    )
    yield Finding("platform", platform.platform())


def check_torch() -> Iterator[Finding]:
    """PyTorch, torchvision and the GPUs they see."""
    try:
        torch = importlib.import_module("torch")
        torchvision = importlib.import_module("torchvision")
    except (ImportError, OSError) as error:
        yield Finding("torch", str(error), ok=False, remedy=SET_UP)
        return
    yield Finding("torch", f"{torch.__version__}, torchvision {torchvision.__version__}")
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    built = f"torch is built for CUDA {torch.version.cuda}" if torch.version.cuda else "torch is built without CUDA"
    if not count:
        remedy = "Everything runs on the CPU, slowly; for a GPU check 'nvidia-smi' and CUDA_VISIBLE_DEVICES"
        yield Finding("GPU", f"none seen; {built}", ok=False, required=False, remedy=remedy)
    for index in range(count):
        memory = torch.cuda.get_device_properties(index).total_memory / 2**30
        yield Finding(f"GPU {index}", f"{torch.cuda.get_device_name(index)}, {memory:.0f} GiB; {built}")


def check_detectron2() -> Iterator[Finding]:
    """detectron2 and where it came from."""
    try:
        importlib.import_module("detectron2")
    except ImportError as error:
        remedy = f"{SET_UP}, or set DETECTRON2_SPEC to a build of yours (docs/how-to/install.md)"
        yield Finding("detectron2", str(error), ok=False, remedy=remedy)
        return
    yield Finding("detectron2", detectron2_origin())


def detectron2_origin() -> str:
    """Say which detectron2 is installed, from where, and whether its compiled operators are there."""
    module = importlib.import_module("detectron2")
    folder = Path(str(module.__file__)).parent
    parts = [f"detectron2 {getattr(module, '__version__', 'of unknown version')}"]
    for name in ("detectron2", *DETECTRON2_REPACKAGED):
        try:
            distribution = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            continue
        parts.append(f"distribution {name} {distribution.version}")
        parts.extend(filter(None, (DETECTRON2_REPACKAGED.get(name), _direct_origin(distribution))))
        break
    else:
        parts.append("no distribution (a folder on the path)")
    try:
        importlib.import_module("detectron2._C")
        parts.append("compiled operators present")
    except ImportError:
        parts.append("no compiled operators (none are needed: NMS and RoIAlign come from torchvision)")
    return "; ".join([*parts, str(folder)])


def _direct_origin(distribution: metadata.Distribution) -> str:
    """Say from which address or commit a distribution was installed, "" if from an index."""
    text = distribution.read_text("direct_url.json")
    if not text:
        return ""
    origin = json_text.loads(text)
    commit = origin.get("vcs_info", {}).get("commit_id")
    return f"from {origin.get('url', 'an unnamed address')}" + (f" commit {commit}" if commit else "")


def check_codecs() -> Iterator[Finding]:
    """Every DICOM transfer syntax that radiographs come in."""
    try:
        pixels = importlib.import_module("pydicom.pixels")
    except ImportError as error:
        yield Finding("pydicom", str(error), ok=False, remedy=SET_UP)
        return
    yield Finding("pydicom", metadata.version("pydicom"))
    for uid, (name, package) in TRANSFER_SYNTAXES.items():
        decoder = pixels.get_decoder(uid)
        plugins = ", ".join(decoder.available_plugins)
        found = f"{name}: {plugins or 'built in'}" if decoder.is_available else f"{name}: no decoder"
        yield Finding("DICOM codec", found, decoder.is_available, remedy=f"pip install {package}")


def check_ct() -> Iterator[Finding]:
    """What reads chest CTs, and the volume encoders that are chosen by name."""
    for module, package in CT_READERS.items():
        try:
            importlib.import_module(module)
        except ImportError as error:
            yield Finding("CT files", str(error), ok=False, remedy=SET_UP)
        else:
            yield Finding("CT files", f"{package} {metadata.version(package)}")
    for package, (extra, use) in CT_ENCODERS.items():
        try:
            yield Finding("CT models", f"{package} {metadata.version(package)}")
        except metadata.PackageNotFoundError:
            remedy = f"Only for {use}: pip install 'd2rnet[{extra}]'"
            yield Finding("CT models", f"{package}: not installed", ok=False, required=False, remedy=remedy)


def check_scoring() -> Iterator[Finding]:
    """Java and the jar of METEOR; without them that one metric is "not run"."""
    for name, find in (("Java", lambda: find_java()[1]), ("METEOR jar", lambda: str(find_jar()))):
        try:
            yield Finding(name, find())
        except ToolError as error:
            problem, _, remedy = str(error).partition(". ")
            advice = f"METEOR will be 'not run'. {remedy.rstrip('.')}"
            yield Finding(name, problem, ok=False, required=False, remedy=advice)


def check_tools() -> Iterator[Finding]:
    """Snakemake and git."""
    try:
        yield Finding("snakemake", metadata.version("snakemake"))
    except metadata.PackageNotFoundError:
        yield Finding("snakemake", "not installed", ok=False, remedy=SET_UP)
    git = shutil.which("git")
    remedy = "run.json will lack the commit; apt-get install git"
    yield Finding("git", git or "not on PATH", bool(git), required=False, remedy=remedy)


def check_resources() -> Iterator[Finding]:
    """Free disk in the working folder, memory and cores."""
    free = shutil.disk_usage(Path.cwd()).free / 1e9
    remedy = f"The demo writes about 1 GB, full-scale data far more; have at least {WANTED_DISK_GB} GB"
    yield Finding("disk", f"{free:.0f} GB free in {Path.cwd()}", free >= WANTED_DISK_GB, required=False, remedy=remedy)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    remedy = f"The demo needs up to {WANTED_MEMORY_GB} GB"
    yield Finding("memory", f"{memory:.0f} GB", memory >= WANTED_MEMORY_GB, required=False, remedy=remedy)
    yield Finding("cores", str(len(os.sched_getaffinity(0))))


def check_trainings(files: Sequence[Path]) -> Iterator[Finding]:
    """Weights, batches and limits of a configuration's trainings on this machine.

    Raises:
        ConfigError: the configuration is not valid.
    """
    from d2rnet.config import check_order, read_configuration
    from d2rnet.cxr.settings import trainings_of
    from d2rnet.runs.provenance import REPOSITORY
    from d2rnet.settings import read_overlay

    overlays = {file.resolve(): read_overlay(file) for file in files}
    check_order(overlays, REPOSITORY / "workflow" / "presets")
    config = read_configuration(files)
    runtime = config.runtime
    machine = {"device": runtime.device_of_jobs, "processes": max(1, runtime.gpus)}
    for wing, settings in (("cxr", (trainings_of(config.cxr), runtime)), ("ct", (config.ct,))):
        name = f"trainings, {wing}"
        try:
            module = importlib.import_module(f"d2rnet.{wing}.verify_training")
        except (ImportError, OSError) as error:
            yield Finding(name, f"not tried: {error}", ok=False, remedy=SET_UP)
            continue
        problems = list(module.training_problems(*settings, **machine))
        yield from (Finding(name, problem, ok=False) for problem in problems)
        if not problems:
            yield Finding(name, f"weights, batches, {runtime.device_of_jobs} and limits fit")


CHECKS: tuple[Callable[[], Iterator[Finding]], ...] = (
    check_python,
    check_torch,
    check_detectron2,
    check_codecs,
    check_ct,
    check_scoring,
    check_tools,
    check_resources,
)
