"""Names of CT-RATE's volumes, which other data sets built on it spell in two ways."""

import re

# CT-RATE writes train_1_a_1, RadGenome in places train_1a_1: one volume.
_NAME = re.compile(r"(train|valid)_?(\d+)_?([a-z]+)_?(\d+)")
SUFFIX = re.compile(r"\.nii(\.gz)?$")


def volume_key(name: str) -> str:
    """Return CT-RATE's spelling of a volume's name: train_1a_1, train_1_a_1 and train_1_a_1.nii.gz are train_1_a_1.

    Args:
        name: with or without folder and suffix; one of another form is returned without both.
    """
    plain = SUFFIX.sub("", name.rpartition("/")[2])
    parts = _NAME.fullmatch(plain)
    return "_".join(parts.groups()) if parts else plain
