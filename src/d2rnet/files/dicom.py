"""What every reader of DICOM files needs of pydicom: its silence, and whether it can decode. Reads and writes nothing."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from pydicom.pixels import get_decoder
from pydicom.uid import UID


@contextmanager
def silent_pydicom() -> Iterator[None]:
    """Keep pydicom's warnings and log lines to itself: they quote the offending values, whoever's they are."""
    logger = logging.getLogger("pydicom")
    level = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def has_decoder(syntax: UID) -> bool:
    """Say whether an installed decoder reads a transfer syntax."""
    try:
        return get_decoder(syntax).is_available
    except NotImplementedError:
        return False
