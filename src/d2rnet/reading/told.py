"""What a person tells of a study beside its radiographs: why it was taken, and the study before."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from d2rnet.cxr.images.views import image_before
from d2rnet.cxr.report_model.settings import D2RNetModelSettings
from d2rnet.errors import ConfigError, DatasetError
from d2rnet.files.documents import check_regular_file, read_json
from d2rnet.reading.result import FORMAT
from d2rnet.report.annotation_file import prior_complaint

MAX_BYTES = 1_000_000  # of a report


@dataclass(frozen=True)
class Told:
    """What is known of a study.

    Attributes:
        indication: why it was taken, "" if nobody says.
        prior: the study before, as ``prior`` in annotation.json; None if there is none.
    """

    indication: str = ""
    prior: Mapping[str, Any] | None = None

    def keys(self) -> dict[str, Any]:
        """Return the keys of an entry."""
        return {"indication": self.indication, "prior": self.prior}

    def record(self) -> dict[str, Any]:
        """Return what a reading says of it: nothing where nothing was told."""
        before = {"prior": self.prior["study_id"]} if self.prior else {}
        return {"told": {"indication": self.indication, **before}} if self.indication or before else {}

    def unread(self, settings: D2RNetModelSettings) -> list[str]:
        """Return a warning for each thing told that a model of these settings does not take."""
        given = (("indication", bool(self.indication), settings.indication), ("prior", bool(self.prior), settings.prior))
        return [
            f"--{name} was not read: this report model was trained without it (cxr.report.model.{name})"
            for name, is_given, is_taken in given
            if is_given and not is_taken
        ]


NOTHING = Told()


def told_of(indication: str | None, prior: Path | None, images: Sequence[Path], *, study: bool) -> Told:
    """Return what the options of ``d2rnet read`` tell.

    Args:
        indication: why the study was taken.
        prior: see :func:`read_prior`.
        images: radiographs that are read.
        study: whether they are views of one study.

    Raises:
        ConfigError: there is not one study of radiographs that it could be told of.
        DatasetError: ``prior`` is not a file of the kind.
        FileNotFoundError: there is no such file.
    """
    if not indication and prior is None:
        return NOTHING
    if not images or (len(images) > 1 and not study):
        raise ConfigError(
            f"--indication, --prior: got {len(images)} radiographs; expected one, or the views of one study with --study."
        )
    return Told(" ".join((indication or "").split()), None if prior is None else read_prior(prior))


def read_prior(path: Path) -> dict[str, Any]:
    """Read the study before: a reading of it, or its report alone.

    Args:
        path: ``<name>.json`` of ``d2rnet read``, of which one image's boxes are taken, as in training
            (:func:`d2rnet.cxr.images.views.image_before`); else a text file in UTF-8.

    Returns:
        An object as under ``prior`` in annotation.json.

    Raises:
        DatasetError: the file is no reading of radiographs, an edited one, no text, or empty.
    """
    if path.suffix.lower() == ".json":
        return _prior_of_reading(read_json(path), path)
    check_regular_file(path)
    data = path.read_bytes()
    if len(data) > MAX_BYTES:
        raise DatasetError(f"--prior {path}: got {len(data)} bytes; expected a report of at most {MAX_BYTES}.")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DatasetError(
            f"--prior {path}: byte {error.start} is not UTF-8; expected a text, or a reading's JSON."
        ) from error
    if not text.strip():
        raise DatasetError(f"--prior {path}: got an empty file; expected the findings of the study before.")
    report = " ".join(text.split())
    return {"study_id": path.stem, "report": report, "height": 1, "width": 1, "boxes": [], "scores": [], "labels": []}


def _prior_of_reading(content: Any, path: Path) -> dict[str, Any]:
    """Take findings and the boxes of one image out of a reading."""
    try:
        if content["format"] != FORMAT:
            raise KeyError("format")
        images = content["images"]
        place = image_before([str(image.get("view", "")) for image in images])
        boxes = [box for box in content["boxes"] if box["image"] == place]
        prior = {
            "study_id": str(content["name"]),
            "report": str(content["findings"]),
            "height": int(images[place]["height"]),
            "width": int(images[place]["width"]),
            "boxes": [[float(value) for value in box["bbox"]] for box in boxes],
            "scores": [float(box["score"]) for box in boxes],
            "labels": [str(box["label"]) for box in boxes],
        }
    except (AttributeError, KeyError, IndexError, TypeError, ValueError) as error:
        raise DatasetError(
            f"--prior {path}: not a reading of radiographs ({type(error).__name__}: {error}); expected a JSON file that "
            f"'d2rnet read' wrote ({FORMAT}), or a text file."
        ) from error
    complaint = prior_complaint(prior, "")
    if complaint:
        raise DatasetError(f"--prior {path}: {complaint}. Give the file as 'd2rnet read' wrote it.")
    return prior
