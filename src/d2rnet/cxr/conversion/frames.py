"""The frame of the boxes against the frame of the file: pictures that viewers turn, and sizes that changed places.

Pixels are taken as stored. A picture with an EXIF orientation is shown turned by browsers and annotation tools, so that boxes
drawn there lie elsewhere in the stored pixels; no table says which of the two the boxes are in. Used by verify_inputs, which
knows both sizes; nothing is written.
"""

import numpy as np
import pandas as pd

from d2rnet.files.problems import Problems

UPRIGHT = 1  # EXIF 2.32, tag 0x0112: rows and columns as stored
SAME_ASPECT = 0.02  # relative difference of height / width that rounding can make
_TURNED_REMEDY = (
    "Draw the boxes of one image over it. Boxes as viewers show the image: write copies with upright pixels and no tag "
    "(ImageMagick: mogrify -auto-orient), and state the sizes of these copies. Boxes of the pixels as stored: take the tag "
    "off the copies (exiftool -Orientation=). Do not exchange height and width in the table: boxes would lie elsewhere "
    "without a word."
)
_SWAPPED_REMEDY = (
    "Draw the boxes of one image over it. Where they fit the file as it is, the two numbers changed places: exchange them in "
    "the size table or json. Where they do not, the picture was turned after it was annotated: write it upright and leave the "
    "numbers."
)


def check_frames(images: pd.DataFrame, boxed: "pd.Series[bool]", problems: Problems) -> None:
    """Note boxed images that viewers turn (kind ``turned_image``), and stated sizes that fit a file on its side.

    Args:
        images: columns ``source_id``, ``file``, ``source_height``, ``source_width`` (0: not stated), ``file_height``,
            ``file_width`` (0: unreadable), ``exif_orientation`` (1: none).
        boxed: whether an image has a box.
        problems: grows by one for each image.
    """
    turned = (images["exif_orientation"] != UPRIGHT) & (images["file_height"] > 0)
    for row in images[turned & boxed].itertuples():
        problems.add(
            "turned_image",
            file=row.file,
            record=f"image {row.source_id}",
            got=f"EXIF orientation {row.exif_orientation} of an image with boxes",
            expected="upright pixels: orientation 1, or no such tag",
            remedy=_TURNED_REMEDY,
        )
    known = (images[["source_height", "source_width", "file_height"]] > 0).all(axis=1) & ~(turned & boxed)
    for row in images[known & _is_swapped(images)].itertuples():
        problems.add(
            "swapped_size",
            file=row.file,
            record=f"image {row.source_id}",
            got=f"a stated size of {row.source_width} x {row.source_height} "
            f"for a file of {row.file_width} x {row.file_height}",
            expected="width x height of the same shape",
            remedy=_SWAPPED_REMEDY,
        )


def _is_swapped(images: pd.DataFrame) -> "pd.Series[bool]":
    """Say of which images the stated height / width is the file's width / height, in whatever scale."""
    stated = images["source_height"] / images["source_width"].replace(0, np.nan)
    file = images["file_height"] / images["file_width"].replace(0, np.nan)
    return ((stated * file - 1.0).abs() < SAME_ASPECT) & ((stated / file - 1.0).abs() > SAME_ASPECT)
