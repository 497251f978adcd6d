"""Where the labels of boxes go on a picture: beside their box, inside the picture, on top of one another only if they must."""

from collections.abc import Sequence

Rectangle = tuple[float, float, float, float]  # left, top, right, bottom
STEPS = 8  # places that are tried along each edge of a box


def place_labels(
    boxes: Sequence[Rectangle], sizes: Sequence[tuple[float, float]], picture: tuple[float, float]
) -> list[tuple[float, float]]:
    """Find a place for the label of each box: the first that is free of those before, or that covers least of them.

    Args:
        boxes: in pixels of the picture; the first one gets the best place, at its upper left corner.
        sizes: width and height of each label, pixels.
        picture: width and height, pixels.

    Returns:
        Left and top of each label; a label that is no larger than the picture lies inside it.
    """
    placed: list[Rectangle] = []
    for box, (width, height) in zip(boxes, sizes, strict=True):
        inside = [
            (max(0.0, min(left, picture[0] - width)), max(0.0, min(top, picture[1] - height)))
            for left, top in _candidates(box, width, height)
        ]
        spots = [(left, top, left + width, top + height) for left, top in inside]
        placed.append(min(spots, key=lambda spot: sum(_overlap(spot, other) for other in placed)))
    return [(left, top) for left, top, _, _ in placed]


def _candidates(box: Rectangle, width: float, height: float) -> list[tuple[float, float]]:
    """Left and top of places for a label: along the upper edge, above it then below it, then along the lower one."""
    left, top, right, bottom = box
    along = [left + step * max(0.0, right - width - left) / STEPS for step in range(STEPS + 1)]
    return [(x, y) for y in (top - height, top, bottom, bottom - height) for x in along]


def _overlap(one: Rectangle, other: Rectangle) -> float:
    across = min(one[2], other[2]) - max(one[0], other[0])
    down = min(one[3], other[3]) - max(one[1], other[1])
    return max(0.0, across) * max(0.0, down)
