"""Which images of an iteration go through the network together: those of one orientation and alike in size.

The images of a pass are padded to the largest of them. detectron2 keeps images of either orientation until a batch is full;
here the images of an iteration are known beforehand and are only dealt out, so that none is lost or put off, and a resumed run
deals as the uninterrupted one would have.

Source: detectron2's aspect-ratio grouping, for batches that are cut over processes and micro-batches.
"""

from collections.abc import Sequence


def deal(sizes: Sequence[tuple[int, int]], *, processes: int, steps: int) -> list[list[int]]:
    """Deal the images of one stream of an iteration to processes and their micro-batches.

    Args:
        sizes: height and width of each image, pixels; as many as ``processes * steps`` or a multiple.
        processes: that share the batch.
        steps: micro-batches of each process.

    Returns:
        For each process the indices of its images, micro-batch after micro-batch. Portraits come before landscapes and small
        before large, and the micro-batches that several processes do at the same time are neighbours in this order, so that
        none waits long for the others.
    """

    def key(index: int) -> tuple[bool, int, int]:
        height, width = sizes[index]
        return width > height, height * width, index

    order = sorted(range(len(sizes)), key=key)
    size = len(order) // (processes * steps)
    parts = [order[first : first + size] for first in range(0, len(order), size)]
    return [[index for part in parts[rank::processes] for index in part] for rank in range(processes)]


def common_hw(sizes: Sequence[tuple[int, int]]) -> tuple[int, int]:
    """Height and width in pixels that hold every one of some images."""
    return max(height for height, _ in sizes), max(width for _, width in sizes)
