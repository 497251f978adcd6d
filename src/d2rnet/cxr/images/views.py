"""The view of an image, however its source spells it: one rule for all.

For a DICOM header, the gate of readings, which images of a source are kept, which get boxes and whose boxes have a side, the
model's input and the study before. Own choice; terms from DICOM PS3.3 C.8.11.5.1.1 (view position) PS3.16 CID 4010 (view
codes), and MIMIC-CXR's table.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from d2rnet.errors import DatasetError

UNKNOWN = "unknown"
PA = "PA"
AP = "AP"
LATERAL = "LATERAL"
_POSITIONS = {"PA": PA, "AP": AP, "LATERAL": LATERAL, "LL": LATERAL, "LAT": LATERAL, "RL": LATERAL}
_POSITIONS |= {"POSTEROANTERIOR": PA, "ANTEROPOSTERIOR": AP}
_HYPHEN = re.compile(r"(?<=ANTERO)[- ]+(?=POSTERIOR)|(?<=POSTERO)[- ]+(?=ANTERIOR)")
_LYING = re.compile(r"\bLAT(?:ERAL)?[- ]+DECUB\w*")  # on the side, which is how the patient lies, not how the rays go
_WORD = re.compile(r"[A-Z]+")


def position_of(view: str) -> str:
    """Return what a view is as DICOM and MIMIC-CXR spell it: PA, AP, LATERAL or ``unknown``.

    The first word that names one counts: "AP AXIAL" and "antero-posterior" are AP, "XTABLE LATERAL" lateral, an oblique view
    ("LPO", "AP oblique") unknown.
    """
    text = _LYING.sub("", _HYPHEN.sub("", view.upper()))
    named = (_POSITIONS[word] for word in _WORD.findall(text) if word in _POSITIONS)
    return UNKNOWN if "OBLIQ" in text else next(named, UNKNOWN)


def has_sides(view: str) -> bool:
    """Say whether the patient's right is the left half of an image: not on a lateral one, whose halves are front and back.

    Args:
        view: as its source names it; one that it does not name ("") is taken for a frontal one.
    """
    return position_of(view) != LATERAL


def image_before(views: Sequence[str]) -> int:
    """Return which image of the study before lends its boxes: the first PA, else the first AP, else the first of all.

    Args:
        views: of its images, one at least, as their source names them ("pa", "AP AXIAL"); "" where it does not.
    """
    positions = [position_of(view) for view in views]
    return next((positions.index(wanted) for wanted in (PA, AP) if wanted in positions), 0)


def shows_view(view: str, wanted: Sequence[str]) -> bool:
    """Say whether an image is of one of some views, by its whole name or by what :func:`position_of` reads from it.

    Args:
        view: as its source names it, PA for instance; "" where it does not.
        wanted: names, in capitals or not; ``unknown`` is the name of images whose source names none. Empty: any.
    """
    if not wanted:
        return True
    named = {view.upper(), position_of(view)} if view else {UNKNOWN.upper()}
    return not named.isdisjoint(name.upper() for name in wanted)


def left_out(views: Iterable[str], wanted: Sequence[str]) -> Counter[str]:
    """Count the images that :func:`shows_view` leaves out by view, in capitals, UNKNOWN where their source names none.

    Args:
        views: of each image, as its source names it; "" where it does not.
        wanted: as for :func:`shows_view`.
    """
    others: Counter[str] = Counter()
    for view, count in Counter(views).items():  # many images, few names
        if not shows_view(view, wanted):
            others[(view or UNKNOWN).upper()] += count
    return others


def other_views(views: Sequence[str], wanted: Sequence[str], *, source: Path, asked_by: str) -> dict[str, int]:
    """Count as :func:`left_out` does, by name of the view, and refuse to leave out all.

    Args:
        views: as for :func:`left_out`.
        wanted: likewise.
        source: file of the images, for the message.
        asked_by: setting or option that names the wanted views, for the message.

    Raises:
        DatasetError: that is all of them.
    """
    others = left_out(views, wanted)
    if len(views) == others.total() > 0:
        found = ", ".join(f"{view} ({count})" for view, count in others.most_common())
        raise DatasetError(
            f"{source}: no image has a view of {asked_by} ({', '.join(wanted)}); views found: {found}. "
            f"Name views that are there, '{UNKNOWN}' where the source names none, or no view for boxes on all images."
        )
    return dict(sorted(others.items()))


def views_looked_at(record: Mapping[str, Any], *, source: Path) -> list[str]:
    """Return the views that predict_boxes was to look at, by its run record; [] for any, as in one of an earlier version.

    Args:
        record: run record of predict-boxes, or of one of its shards.
        source: its file, for the message.

    Raises:
        DatasetError: they are no list of texts.
    """
    views = record.get("views", [])
    if not (isinstance(views, list) and all(isinstance(view, str) for view in views)):
        raise DatasetError(f"{source}: views {views!r}; expected a list of texts. Run 'd2rnet predict-boxes-shard' again.")
    return views
