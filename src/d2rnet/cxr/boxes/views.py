"""The view of an image, however its source spells it: one rule for boxes, for the model's input and for the study before."""

from collections.abc import Sequence

UNKNOWN = "unknown"
PA = "PA"
AP = "AP"
LATERAL = "LATERAL"
_POSITIONS = {"PA": PA, "AP": AP, "LATERAL": LATERAL, "LL": LATERAL, "LAT": LATERAL, "RL": LATERAL}


def position_of(view: str) -> str:
    """Return what a view is as DICOM and MIMIC-CXR spell it: PA, AP, LATERAL or ``unknown``.

    The first word that names one counts: "AP AXIAL" is AP, "XTABLE LATERAL" lateral, an oblique view unknown.
    """
    return next((_POSITIONS[word] for word in view.upper().split() if word in _POSITIONS), UNKNOWN)


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
