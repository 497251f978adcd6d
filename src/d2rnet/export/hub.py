"""A folder ready for upload to a model hub: weights, configurations, a card; loaded back with ``d2rnet.load_models(folder)``.

Reads: the two model folders of a run, and their cards. Writes ``README.md``, a model card whose YAML front matter is that of
huggingface_hub's ``ModelCardData``, and a folder per model with nothing but what a reading needs: no run record, no history.
The folder is loaded before it takes its name.

Source: https://huggingface.co/docs/hub/model-cards (front matter); Mitchell et al., Model Cards, FAT* 2019.
"""

import logging
import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import Any

import yaml

import d2rnet
from d2rnet.cxr.detector.config import CONFIG_NAME, TEACHER_NAME
from d2rnet.errors import ConfigError
from d2rnet.export.model_index import DEMO, model_index
from d2rnet.files.atomic import write_text
from d2rnet.files.hashes import sha256_file
from d2rnet.reading.ct import load_ct_models
from d2rnet.reading.ct_settings import read_ct_reading_settings
from d2rnet.reading.cxr import load_models
from d2rnet.reading.cxr_settings import FILE as READING
from d2rnet.reading.model_folder import CT, RADIOGRAPHS, Parts, find_parts
from d2rnet.report.model_files import CONFIG, VOCABULARY, WEIGHTS

log = logging.getLogger(__name__)
TEMPLATE = Path(__file__).with_name("hub_card.md.template")
_REPORT_FILES = (WEIGHTS, VOCABULARY, CONFIG, READING)
_SYNTHETIC = "\n> **Trained on synthetic drawings: on a real {image} every finding is meaningless.**\n"


@dataclass(frozen=True)
class Kind:
    """What is uploaded of a modality.

    Attributes:
        parts: its two models.
        files: of the first one.
        load: loads both from one folder.
        title: of the card.
        image: what is read, as a person calls it.
        example: a file of it.
        tags: of the front matter.
    """

    parts: Parts
    files: tuple[str, ...]
    load: Callable[..., Any]
    title: str
    image: str
    example: str
    tags: tuple[str, ...]


KINDS = {
    "cxr": Kind(
        RADIOGRAPHS,
        (TEACHER_NAME, CONFIG_NAME),
        load_models,
        "Chest radiographs: findings with lesion boxes",
        "radiograph",
        "chest.dcm",
        ("chest-x-ray", "radiology-report-generation", "object-detection"),
    ),
    "ct": Kind(
        CT,
        (WEIGHTS, VOCABULARY, CONFIG),
        load_ct_models,
        "Chest CT: findings by structure",
        "CT",
        "scan.nii.gz",
        ("chest-ct", "radiology-report-generation"),
    ),
}


def export_hub(
    *,
    modality: str,
    detector: Path,
    report_model: Path,
    structures: Path,
    ct_report_model: Path,
    cards: list[Path],
    scores: list[Path],
    dataset: str | None,
    license: str,
    output: Path,
) -> None:
    """Write the folder.

    Args:
        modality: ``cxr`` or ``ct``.
        detector: folder of train-detector, of radiographs.
        report_model: folder of train-report-model, of radiographs.
        structures: folder of train-structures, of CT.
        ct_report_model: folder of train-ct-report-model, of CT.
        cards: Markdown pages to join to the card, such as those of summarize; none: ``model_card.md`` of each model.
        scores: metrics.json of the evaluations of these models, for ``model-index``; none: it is left out.
        dataset: name of the data that they were tested on; None: that of the demo cohort, for models that it trained.
        license: of the weights, as the hub spells it.
        output: folder to make.

    Raises:
        ConfigError: there is no such modality, ``output`` holds files already, or the scores are of other weights or of data
            without a name.
        FileNotFoundError: a model, or a file of one, is missing.
        CheckpointError: the models cannot be loaded, or do not belong together.
    """
    if modality not in KINDS:
        raise ConfigError(f"--modality {modality[:80]}: expected {' or '.join(KINDS)}.")
    kind = KINDS[modality]
    named = (detector, report_model) if kind.parts is RADIOGRAPHS else (structures, ct_report_model)
    sources = find_parts(*named, kind.parts)
    if output.exists() and not (output.is_dir() and not any(output.iterdir())):
        raise ConfigError(f"--output {output}: is there already; expected a new or empty folder. Name another one.")
    output.parent.mkdir(parents=True, exist_ok=True)
    folder = output.parent / f".{output.name}.part"
    shutil.rmtree(folder, ignore_errors=True)  # of a process that was killed
    try:
        files = _copy(kind, sources, folder)
        models = kind.load(folder, device="cpu")
        pages = [page for page in cards or [source / "model_card.md" for source in sources] if page.is_file()]
        synthetic = models.settings.synthetic
        front = front_matter(kind, license=license, synthetic=synthetic)
        if scores:
            name = dataset or (DEMO[modality] if synthetic else "")
            if not name:
                raise ConfigError("--dataset: missing; expected the name of the data that --scores were measured on.")
            front["model-index"] = model_index(kind.title, scores, name, files)
        write_text(folder / "README.md", _card(kind, files, pages, front, synthetic=synthetic))
        if output.exists():
            output.rmdir()
        folder.rename(output)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    log.info("export hub: %d files, %d cards joined: %s", len(files) + 1, len(pages), output)


def _copy(kind: Kind, sources: Sequence[Path], folder: Path) -> dict[str, str]:
    """Copy what a reading needs; return path in the folder -> SHA-256."""
    hashes = {}
    for source, (name, command, _), wanted in zip(
        sources, (kind.parts.first, kind.parts.report), (kind.files, _report_files(kind, sources[1])), strict=True
    ):
        (folder / name).mkdir(parents=True)
        for file in wanted:
            if not (source / file).is_file():
                raise FileNotFoundError(
                    f"{source / file}: no such file; expected a folder of 'd2rnet {command}' of a finished run."
                )
            shutil.copyfile(source / file, folder / name / file)
            hashes[f"{name}/{file}"] = sha256_file(folder / name / file)
    return hashes


def _report_files(kind: Kind, folder: Path) -> tuple[str, ...]:
    """Return the files of a report model's folder that a reading needs."""
    named = read_ct_reading_settings(folder).own_files if kind.parts is CT and (folder / READING).is_file() else ()
    return *_REPORT_FILES, *named


def _card(kind: Kind, files: Mapping[str, str], pages: Sequence[Path], front: Mapping[str, Any], *, synthetic: bool) -> str:
    matter = yaml.safe_dump(dict(front), sort_keys=False, allow_unicode=True)
    body = Template(TEMPLATE.read_text(encoding="utf-8")).substitute(
        title=kind.title,
        warning=_SYNTHETIC.format(image=kind.image) if synthetic else "",
        load=kind.parts.load,
        example=kind.example,
        version=d2rnet.__version__,
        files="\n".join(f"| `{name}` | `{sha256}` |" for name, sha256 in files.items()),
        cards="\n\n".join(_joined(page.read_text(encoding="utf-8")) for page in pages),
    )
    return f"---\n{matter}---\n\n{body.rstrip()}\n"


def front_matter(kind: Kind, *, license: str, synthetic: bool) -> dict[str, Any]:
    """Return the front matter: what a hub's search and its licence filter look at."""
    named = {"license": license} if license != "other" else {"license": "other", "license_name": "not-stated"}
    return {
        **named,
        "language": ["en"],
        "library_name": "d2rnet",
        "pipeline_tag": "image-to-text",
        "tags": [*kind.tags, "medical-imaging", *(["synthetic-data"] if synthetic else [])],
        "inference": False,
    }


def _joined(card: str) -> str:
    """Return a card as a part of another one: its headings a level lower."""
    return "\n".join(_lowered(card.strip().splitlines()))


def _lowered(lines: Sequence[str]) -> Iterator[str]:
    fenced = False
    for line in lines:
        fenced ^= line.startswith("```")
        yield line if fenced else re.sub(r"^(#{1,5}) ", r"#\1 ", line)
