"""Names of CT-RATE's volumes, which other data sets built on it spell in two ways."""

import re

# CT-RATE writes train_1_a_1, RadGenome in places train_1a_1: one volume.
_NAME = re.compile(r"(train|valid)_?(\d{1,9})_?([a-z]+)_?(\d{1,9})")
SUFFIX = re.compile(r"\.nii(\.gz)?$")


def volume_key(name: str) -> str:
    """Return CT-RATE's spelling of a volume's name: train_1a_1, train_1_a_1 and train_1_a_1.nii.gz are train_1_a_1.

    Args:
        name: with or without folder and suffix; one of another form is returned without both.
    """
    plain = SUFFIX.sub("", name.rpartition("/")[2])
    parts = _NAME.fullmatch(plain)
    return "_".join(parts.groups()) if parts else plain


def study_key(name: str) -> tuple[str, int]:
    """Return the study of a volume, and which reconstruction of it this is: train_1a_2 is train_1_a and 2.

    Args:
        name: as :func:`volume_key` takes it; one of another form is a study of its own, number 0.
    """
    volume = volume_key(name)
    if not _NAME.fullmatch(volume):
        return volume, 0
    study, _, number = volume.rpartition("_")
    return study, int(number)
