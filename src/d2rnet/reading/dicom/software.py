"""What a document says of the software that wrote it: names, versions, and which weights."""

import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from highdicom.sr import AlgorithmIdentification
from pydicom.uid import UID

MANUFACTURER = "D2R-Net pipeline maintainers (research software)"
MODEL = "d2rnet"
DETECTOR = "detector"  # in a reading's ``models``
WRITER = "report_model"
_NAMES = {DETECTOR: "d2rnet detector (EMA teacher)", WRITER: "d2rnet report model"}


@dataclass(frozen=True)
class Software:
    """Models and code of a reading.

    Attributes:
        versions: of the package, and its commit where it is known.
        models: part -> file name -> SHA-256.
    """

    versions: tuple[str, ...]
    models: Mapping[str, Mapping[str, str]]

    @classmethod
    def of(cls, origin: Mapping[str, Any]) -> "Software":
        """Read them off what a reading records of its models."""
        code = origin["code"]
        changed = " with changes" if code["dirty"] else ""
        commit = (f"commit {code['commit'][:12]}{changed}",) if code["commit"] else ()
        return cls((f"d2rnet {code['d2rnet']}", *commit), origin["models"])

    @property
    def uid(self) -> UID:
        """Of the models as an observer: the same for the same weights."""
        weights = json.dumps(self.models, sort_keys=True)
        return UID(f"2.25.{uuid.uuid5(uuid.NAMESPACE_OID, weights).int}")

    def identification(self, part: str) -> AlgorithmIdentification:
        """Return name, version and weights of the detector or the report model (TID 4019)."""
        hashes = [f"{name} SHA-256 {digest}" for name, digest in self.models[part].items()]
        return AlgorithmIdentification(_NAMES[part], ", ".join(self.versions), hashes, manufacturer=MANUFACTURER)
