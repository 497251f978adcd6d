"""Which images show a wanted view: one rule for what the detector is trained on and for what gets boxes."""

from collections.abc import Sequence

UNKNOWN = "unknown"


def shows_view(view: str, wanted: Sequence[str]) -> bool:
    """Say whether an image is of one of some views.

    Args:
        view: as its source names it, PA for instance; "" where it does not.
        wanted: names, in capitals or not; ``unknown`` is the name of images whose source names none. Empty: any.
    """
    return not wanted or (view or UNKNOWN).upper() in {name.upper() for name in wanted}
