"""What a reading holds: views, boxes, sentences."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

NOTICE = (
    "Research software, not a medical device: no diagnosis, no treatment decision. Findings, and where they are said to be, "
    "may be wrong. Images and text may be protected health information."
)
SYNTHETIC = "trained on synthetic drawings: on a real {image} every finding is meaningless"  # of what is no drawing


@dataclass(frozen=True)
class View:
    """One image of a reading.

    Attributes:
        path: its file.
        view: PA, AP, LATERAL or "".
        pixels: (height, width) uint8, original size, bright where the body absorbs.
    """

    path: Path
    view: str
    pixels: NDArray[np.uint8] = field(repr=False, compare=False)

    @property
    def height(self) -> int:
        """Height in original pixels."""
        return self.pixels.shape[0]

    @property
    def width(self) -> int:
        """Width in original pixels."""
        return self.pixels.shape[1]


@dataclass(frozen=True)
class Box:
    """A lesion: index of its image, class name, score from 0 to 1, and ``xywh`` in original pixels of that image."""

    image: int
    label: str
    score: float
    xywh: tuple[float, float, float, float]


@dataclass(frozen=True)
class Sentence:
    """A sentence: text, indices of the boxes it looks at, and of the one it looks at most (None where there is no box)."""

    text: str
    boxes: tuple[int, ...]
    attended: int | None


@dataclass(frozen=True)
class Content:
    """What the models see and say.

    Attributes:
        name: of the image file, without its suffix, or of the study.
        images: the image, or the views of the study.
        boxes: kept boxes, image by image, best score first.
        sentences: in order; their texts make the findings.
        hypothesis: the findings as tokens of the report model's text protocol, as in test.jsonl.
        log_prob: of the hypothesis, natural logarithm.
        warnings: what a reader should know, such as a view that the models were not trained on.
        origin: ``models`` (SHA-256 of their files), ``settings``, ``code``, ``device``.
        seconds: from file to findings.
    """

    name: str
    images: tuple[View, ...]
    boxes: tuple[Box, ...]
    sentences: tuple[Sentence, ...]
    hypothesis: str
    log_prob: float
    warnings: tuple[str, ...]
    origin: dict[str, Any]
    seconds: float
