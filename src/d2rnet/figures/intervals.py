"""95 % intervals of shares of few cases."""

Z = 1.959964  # of the normal distribution, 95 %, two sides


def share_interval(hits: int, cases: int) -> tuple[float, float]:
    """Return the Wilson interval of a share (JASA 1927).

    Cases are taken as independent, which boxes of one image are not quite.

    Args:
        hits: cases that count.
        cases: all; with none the interval is from 0 to 1.

    Raises:
        ValueError: more hits than cases, or a negative number.
    """
    if not 0 <= hits <= cases:
        raise ValueError(f"interval of a share: got {hits} of {cases}; expected 0 to {cases}.")
    if not cases:
        return 0.0, 1.0
    share = hits / cases
    middle = (share + Z**2 / (2 * cases)) / (1 + Z**2 / cases)
    half = Z / (1 + Z**2 / cases) * (share * (1 - share) / cases + Z**2 / (4 * cases**2)) ** 0.5
    return max(0.0, middle - half), min(1.0, middle + half)
