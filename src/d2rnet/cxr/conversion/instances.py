"""Copies that DICOM names: files of other bytes with one SOPInstanceUID, such as one re-encoded or with a changed header.

A UID alone proves nothing: tools that take names out of headers write a dummy, or one for all images of a study. So the
pictures of files that share a UID are compared, reduced to 32 x 32 grey levels, and are copies where their correlation is at
least 0.95 (own choice). Of 96 radiographs of ChestX-ray14 no two have more than 0.922; ten of them against themselves have at
least 0.9998 after JPEG of quality 30 or at a third of the size, and at least 0.954 through a window of half the width. A UID
of other pictures is counted. A file that states no UID, or another one than its original, is found by its bytes alone
(:mod:`d2rnet.cxr.conversion.copies`).
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from d2rnet.cxr.conversion.copies import Identity
from d2rnet.cxr.images.grey_levels import SIDE, correlation, reduce
from d2rnet.cxr.images.reader import read_radiograph
from d2rnet.errors import DatasetError
from d2rnet.runs.parallel import map_in_processes

LEAST_CORRELATION = 0.95
MOST_OF_ONE_UID = 64  # contents; a UID that more have is a dummy, and their pictures are not looked at
Picture = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Instances:
    """What files are, by their bytes and by the UIDs that they state.

    Attributes:
        identities: file -> identity, equal for files of the same bytes and for those of one instance; None as before.
        copies: files of other bytes than the one whose identity they got.
        of_shared_uids: files whose UID another picture states too.
    """

    identities: dict[str, Identity | None]
    copies: frozenset[str]
    of_shared_uids: frozenset[str]


def join_instances(identities: Mapping[str, Identity | None], uids: Mapping[str, str | None], workers: int) -> Instances:
    """Give files of one instance one identity.

    Pictures are decoded, coarsely, only of files that share a UID and differ in their bytes.

    Args:
        identities: file -> what names its bytes, of :func:`d2rnet.cxr.conversion.copies.identify`.
        uids: file -> hash of the SOPInstanceUID; "" or None where it states none.
        workers: processes that decode.
    """
    by_uid: dict[str, dict[Identity, str]] = defaultdict(dict)
    for file, identity in identities.items():
        uid = uids.get(file)
        if uid and identity is not None:
            by_uid[uid].setdefault(identity, file)
    repeated = {uid: contents for uid, contents in by_uid.items() if len(contents) > 1}
    looked_at = {uid: contents for uid, contents in repeated.items() if len(contents) <= MOST_OF_ONE_UID}
    files = [file for contents in looked_at.values() for file in contents.values()]
    pictures = map_in_processes(_picture, files, workers=workers, what="compare images of one SOPInstanceUID")
    first: dict[Identity, Identity] = {}
    dummies = repeated.keys() - looked_at.keys()
    for uid, contents in looked_at.items():
        found = _group(contents, pictures)
        first |= found
        if len(set(found.values())) > 1:
            dummies |= {uid}
    joined = {file: identity if identity is None else first.get(identity, identity) for file, identity in identities.items()}
    copies = frozenset(file for file, identity in identities.items() if joined[file] != identity)
    return Instances(joined, copies, frozenset(file for file in identities if uids.get(file) in dummies))


def _group(contents: Mapping[Identity, str], pictures: Iterator[Picture | None]) -> dict[Identity, Identity]:
    """Map each content to the first one of the same picture; one that cannot be decoded to itself."""
    kept: list[tuple[Identity, Picture]] = []
    found = {}
    for identity in contents:
        picture = next(pictures)
        same = None
        if picture is not None:
            same = next((other for other, seen in kept if correlation(picture, seen) >= LEAST_CORRELATION), None)
            if same is None:
                kept.append((identity, picture))
        found[identity] = identity if same is None else same
    return found


def _picture(file: str) -> Picture | None:
    """Return (32, 32) grey levels of an image; None where it cannot be decoded."""
    try:
        return reduce(read_radiograph(Path(file), max_side_px=2 * SIDE).pixels)
    except DatasetError:
        return None
