"""Boundary-offset box coding: one number for each boundary, so that each boundary can have its own uncertainty.

Source: Unbiased Teacher v2, sec. 3.3. Differs: the authors' code encodes with extent + 1 and decodes with extent, so that its
codec does not invert (0.9 px off for a 10 px shift of a 10 px box); here both directions use the extent. Weights trained with
detectron2's centre/size coding cannot be converted: the last layer means something else.

Shapes: R boxes; deltas and boxes are ordered left, top, right, bottom.
"""

from torch import Tensor

DELTA_SCALE = 10.0
GREATEST_OFFSET = 1000.0 / 16  # extents; the authors' limit, so that a wild prediction stays finite


class BoundaryOffsetTransform:
    """Encode and decode boxes as ``scale * (target boundary - source boundary) / extent``.

    The extent is the source's width for left and right, its height for top and bottom.
    """

    def __init__(self, scale: float = DELTA_SCALE) -> None:
        """Keep the scale; ``weights`` has detectron2's meaning, one factor a coordinate."""
        self.scale = scale
        self.weights = (scale,) * 4

    def get_deltas(self, source_xyxy: Tensor, target_xyxy: Tensor) -> Tensor:
        """Encode targets relative to sources.

        Args:
            source_xyxy: (R, 4) pixels, x2 > x1, y2 > y1 (proposals).
            target_xyxy: (R, 4) pixels.

        Returns:
            (R, 4) deltas, left, top, right, bottom.

        Raises:
            ValueError: a source box has no area.
        """
        extent = _extents(source_xyxy)
        if bool((extent <= 0).any()):
            raise ValueError("source boxes must have width and height > 0 px")
        return (target_xyxy - source_xyxy) / extent * self.scale

    def apply_deltas(self, deltas: Tensor, source_xyxy: Tensor) -> Tensor:
        """Decode deltas; the inverse of :meth:`get_deltas`.

        Args:
            deltas: (R, 4), left, top, right, bottom.
            source_xyxy: (R, 4) pixels.

        Returns:
            (R, 4) float32 boxes in pixels. Boundaries may cross, as the authors' may: such a box has no area, overlaps nothing
            and is never drawn.
        """
        source_xyxy = source_xyxy.float()
        offsets = (deltas.float() / self.scale).clamp(-GREATEST_OFFSET, GREATEST_OFFSET)
        return source_xyxy + offsets * _extents(source_xyxy)


def _extents(boxes_xyxy: Tensor) -> Tensor:
    """Return (R, 4): width, height, width, height."""
    return (boxes_xyxy[:, 2:] - boxes_xyxy[:, :2]).repeat(1, 2)
