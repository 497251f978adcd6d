"""Which box is evidence for a sentence: of the class that it names, then on the side that it names, then the surest.

Neither training nor attention decides, but what the sentence says (findings/mentions.py) and what was detected. A sentence
that names nothing as there, or only denies, has no box. Sides are the patient's, who faces the viewer in frontal radiographs:
the patient's right is the left half of an image. A box on a lateral one has no side ("" below): it is no proof of either, and
contradicts none. ``linked`` are places in the entry's boxes.
"""

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache, partial
from typing import Any

from d2rnet.cxr.images.views import has_sides
from d2rnet.findings.mention_context import State
from d2rnet.findings.mentions import Mention, find_mentions

BOTH = ("left", "right")
SIDES = ("", *BOTH)  # by number, in tensors
BRACKETS = "[n]: a box of what the sentence names. Attended: looked at while the sentence was written; attended, not proof."
_SIDE_IS_NO_PLACE = frozenset(("Mediastinal shift",))  # its side is where to


def box_sides(entry: Mapping[str, Any]) -> list[str]:
    """Return the side of each box of an entry of annotation.json, see :func:`side_of`.

    An entry that does not tell its ``views`` is taken for one of frontal radiographs.
    """
    several = "box_image" in entry
    images = entry["box_image"] if several else [0] * len(entry["boxes"])
    widths = entry["widths"] if several else [entry["width"]]
    views = entry.get("views") or [""] * len(widths)
    return [side_of(box, widths[image], views[image]) for box, image in zip(entry["boxes"], images, strict=True)]


def side_of(box_xywh: Sequence[float], width: float, view: str) -> str:
    """Return the patient's side, left or right, on which the centre of a box lies; "" on a view that shows none.

    Args:
        box_xywh: in pixels of its image.
        width: of the image, pixels.
        view: of the image, as its source names it; "" where it does not.
    """
    if not has_sides(view):
        return ""
    left, _, across, _ = box_xywh
    return "right" if left + across / 2 < width / 2 else "left"


def link_boxes(text: str, labels: Sequence[str], scores: Sequence[float], sides: Sequence[str]) -> list[int]:
    """Return the boxes that are evidence for a sentence, at most one for each class and side that it names.

    A class that is named on both sides may have a box on each. Where no box of the class lies on the named side, the surest of
    those without a side stands in, then the surest of the class: that it contradicts the sentence is for the reader to see.

    Args:
        text: one sentence.
        labels: class of each of K boxes.
        scores: of each box.
        sides: of each box, see :func:`box_sides`.

    Returns:
        Places of boxes, those on the named side first, then those without a side, then by falling
        score; empty where no class is named as present or doubted, or no box is of such a class.
    """

    def rank(place: int, side: str) -> tuple[int, float]:
        return 2 if not side or sides[place] == side else int(not sides[place]), scores[place]

    ranks: dict[int, tuple[int, float]] = {}
    for mention in _named(text):
        own = [place for place, label in enumerate(labels) if label == mention.category]
        for side in _sides_of(mention) if own else ():
            best = max(own, key=partial(rank, side=side))  # the first of equals
            ranks[best] = max(rank(best, side), ranks.get(best, (0, 0.0)))
    return sorted(sorted(ranks), key=ranks.__getitem__, reverse=True)


def fitting_boxes(text: str, labels: Sequence[str], sides: Sequence[str]) -> list[int]:
    """Return all boxes of the classes that a sentence names, on the sides that it names them on, in their order.

    A box without a side fits a class that is named without one, or on both: where one side alone is named, nothing tells
    whether it is of that side.

    Args:
        text: one sentence.
        labels: class of each of K boxes.
        sides: of each box, see :func:`box_sides`.
    """
    named = _places_named(text)

    def fits(label: str, side: str) -> bool:
        return (label, "") in named or named.issuperset((label, one) for one in ([side] if side else BOTH))

    return [place for place, box in enumerate(zip(labels, sides, strict=True)) if fits(*box)]


@lru_cache(maxsize=2**16)
def _places_named(text: str) -> frozenset[tuple[str, str]]:
    """Return class and side of what a sentence names; the side is "" where it names none."""
    return frozenset((mention.category, side) for mention in _named(text) for side in _sides_of(mention))


def linked_boxes(sentence: Mapping[str, Any], entry: Mapping[str, Any]) -> list[int]:
    """Return the linked boxes of a sentence of test.jsonl.

    Args:
        sentence: ``text`` and ``attended``; ``linked``, which files of earlier versions lack, is taken as it is.
        entry: of annotation.json that the sentence was written for.

    Returns:
        As :func:`link_boxes`; empty for an unfinished sentence, which attends to no box and says nothing yet.
    """
    if "linked" in sentence:
        return list(sentence["linked"])
    if sentence.get("attended") is None:
        return []
    return link_boxes(sentence["text"], entry["labels"], entry["scores"], box_sides(entry))


def speaks_of(text: str, label: str, side: str) -> bool:
    """Say whether a sentence names a class as present or doubted, and not on the other side than ``side`` ("": any) alone."""
    own = [mention for mention in _named(text) if mention.category == label]
    return any(not side or named in (side, "") for mention in own for named in _sides_of(mention))


def attended_alone(text: str, listed: Sequence[int], linked: Sequence[int]) -> list[int]:
    """Return the boxes of ``listed`` that a sentence merely looks at; none where it names nothing as there: it has no box."""
    return [place for place in listed if place not in linked] if _named(text) else []


def evidence_of(sentence: Mapping[str, Any], entry: Mapping[str, Any]) -> tuple[list[int], list[int]]:
    """Return the boxes that a sentence of test.jsonl is linked to, and those that it merely looks at.

    Args:
        sentence: ``text``, ``boxes`` and what :func:`linked_boxes` reads.
        entry: of annotation.json that the sentence was written for.
    """
    linked = linked_boxes(sentence, entry)
    return linked, attended_alone(sentence["text"], sentence["boxes"], linked)


def shown_boxes(scores: Sequence[float], evidence: Iterable[int], least_score: float) -> list[int]:
    """Return the boxes that pages and pictures show: sure ones, and weaker ones that a sentence needs to be understood.

    Args:
        scores: of each of K boxes.
        evidence: places of the boxes that any sentence is linked to, or merely looks at.
        least_score: of a box that is shown whatever is written.

    Returns:
        Their places, in order.
    """
    needed = set(evidence)
    return [place for place, score in enumerate(scores) if score >= least_score or place in needed]


def bracketed(linked: Sequence[int], attended: Sequence[int]) -> str:
    """Write the numbers of boxes behind a sentence, from 1 on: `` [1, 2] (attended: 3)``, "" for none."""
    shown = f" [{box_numbers(linked)}]" if linked else ""
    return f"{shown} (attended: {box_numbers(attended)})" if attended else shown


def box_numbers(places: Sequence[int]) -> str:
    """Write the numbers of boxes, from 1 on, with commas between them."""
    return ", ".join(str(place + 1) for place in places)


def named_side(text: str) -> str:
    """Return the one side, left or right, that a sentence names; "" if it names none, or both."""
    sides = {side for mention in _named(text) for side in _sides_of(mention) if side}
    return sides.pop() if len(sides) == 1 else ""


def _named(text: str) -> list[Mention]:
    return [mention for mention in find_mentions(text) if mention.state is not State.ABSENT]


def _sides_of(mention: Mention) -> tuple[str, ...]:
    if mention.category in _SIDE_IS_NO_PLACE:
        return ("",)
    return BOTH if mention.side == "bilateral" else (mention.side,)
