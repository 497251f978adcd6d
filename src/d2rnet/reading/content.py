"""What a reading holds: views, boxes, sentences."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from d2rnet.cxr.boxes.evidence import attended_alone, shown_boxes, side_of, speaks_of

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
    """A lesion.

    Attributes:
        image: index of its image.
        label: class name.
        score: from 0 to 1.
        xywh: original pixels of that image.
        own: a person drew it.
    """

    image: int
    label: str
    score: float
    xywh: tuple[float, float, float, float]
    own: bool = False


@dataclass(frozen=True)
class Sentence:
    """A sentence of the findings. Boxes are places among the reading's.

    Attributes:
        text: as a person would write it.
        boxes: those that it looks at, most attended first.
        attended: the one that stands out most among what it looks at, listed or not; None where there is no box.
        linked: boxes of the classes that it names as there, see :func:`d2rnet.cxr.boxes.evidence.link_boxes`.
    """

    text: str
    boxes: tuple[int, ...]
    attended: int | None
    linked: tuple[int, ...] = ()

    @property
    def attended_alone(self) -> tuple[int, ...]:
        """Boxes that it looks at and that are not linked to it; none where it names nothing as there."""
        return tuple(attended_alone(self.text, self.boxes, self.linked))


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
        shown_score: least score of a box that pages and pictures show whatever is written.
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
    shown_score: float = 0.0

    @property
    def shown(self) -> tuple[int, ...]:
        """Places of the boxes that pages and pictures show: sure ones, a person's, and those that a sentence speaks of."""
        own = [place for place, box in enumerate(self.boxes) if box.own]
        evidence = [place for sentence in self.sentences for place in (*sentence.linked, *sentence.attended_alone)]
        return tuple(shown_boxes([box.score for box in self.boxes], [*own, *evidence], self.shown_score))

    @property
    def numbered(self) -> list[tuple[int, Box]]:
        """The boxes that are shown, each with its number: its place among all, from 1 on."""
        return [(place + 1, self.boxes[place]) for place in self.shown]

    @property
    def weaker_boxes(self) -> str:
        """What stands in place of the boxes that are not shown; "" where all are."""
        count = len(self.boxes) - len(self.shown)
        return f"{count} more with a score below {self.shown_score:.2f}, of which no sentence speaks" if count else ""

    @property
    def for_own_boxes(self) -> dict[int, tuple[list[int], list[int]]]:
        """Places of the boxes that a person drew, each with its sentences.

        These are those that speak of its class, and not of the other side alone, a box on a lateral image having none; then
        those that attend to it most and do not.
        """
        found = {}
        for place, box in enumerate(self.boxes):
            if box.own:
                image = self.images[box.image]
                side = side_of(box.xywh, image.width, image.view)
                named = [number for number, one in enumerate(self.sentences) if speaks_of(one.text, box.label, side)]
                attended = [number for number, one in enumerate(self.sentences) if one.attended == place]
                found[place] = (named, [number for number in attended if number not in named])
        return found

    def own_box_texts(self) -> dict[int, list[str]]:
        """Return what is said of each box that a person drew: its sentences, or that none speaks of it."""
        texts = {}
        for place, (named, attended) in self.for_own_boxes.items():
            said = [self.sentences[number].text for number in named]
            seen = [f"attended, not proof: {self.sentences[number].text}" for number in attended]
            texts[place] = [*(said or ["no sentence names it"]), *seen]
        return texts

    @property
    def has_brackets(self) -> bool:
        """Whether any sentence shows a box."""
        return any(sentence.linked or sentence.attended_alone for sentence in self.sentences)
