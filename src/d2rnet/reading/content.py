"""What a reading holds: views, boxes, sentences."""

from dataclasses import dataclass
from pathlib import Path

NOTICE = (
    "Research software, not a medical device: no diagnosis, no treatment decision. Boxes and findings may be wrong. Image and "
    "text may be protected health information."
)


@dataclass(frozen=True)
class View:
    """One image of a reading: its file, height and width in original pixels, and PA, AP, LATERAL or ""."""

    path: Path
    height: int
    width: int
    view: str


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
