"""Files of one SOPInstanceUID: copies where their pictures agree, counted where they do not."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from dicom_samples import data_set, write
from pydicom.uid import JPEG2000Lossless

from d2rnet.cxr.conversion import instances
from d2rnet.cxr.conversion.copies import identify
from d2rnet.cxr.conversion.instances import join_instances
from d2rnet.cxr.images.reader import read_header

UID = "1.2.826.0.1.3680043.8.498.7"


def picture(seed: int, height: int = 240, width: int = 210) -> np.ndarray:
    """Draw an own picture: (height, width) uint16 of 12 bits."""
    coarse = np.random.default_rng(seed).random((7, 6), dtype=np.float32)
    return (4000 * cv2.resize(coarse, (width, height), interpolation=cv2.INTER_LINEAR)).astype(np.uint16)


def join(*files: Path):
    names = list(map(str, files))
    uids = {name: read_header(name).uid_hash if Path(name).exists() else None for name in names}
    return join_instances(identify(names, 1), uids, 1)


def groups(found, *files: Path) -> list[int]:
    """Number the identities of files by their first appearance."""
    seen: list[object] = []
    for file in files:
        identity = found.identities[str(file)]
        seen += [] if identity in seen else [identity]
    return [seen.index(found.identities[str(file)]) for file in files]


def test_reencoded_and_relabelled_copies_of_one_uid_are_one_image(tmp_path):
    original = write(tmp_path / "a.dcm", data_set(picture(1), SOPInstanceUID=UID))
    packed = write(tmp_path / "b.dcm", data_set(picture(1), JPEG2000Lossless, SOPInstanceUID=UID))
    nameless = write(tmp_path / "c.dcm", data_set(picture(1), SOPInstanceUID=UID, PatientName="", PatientID="x"))
    windowed = write(tmp_path / "d.dcm", data_set(picture(1), SOPInstanceUID=UID, WindowCenter=1900, WindowWidth=3000))
    smaller = cv2.resize(picture(1), (105, 120), interpolation=cv2.INTER_AREA)
    reduced = write(tmp_path / "e.dcm", data_set(smaller, SOPInstanceUID=UID))
    other = write(tmp_path / "f.dcm", data_set(picture(1)))  # the same picture under an own UID
    files = (original, packed, nameless, windowed, reduced, other)
    found = join(*files)
    assert groups(found, *files) == [0, 0, 0, 0, 0, 1]
    assert found.copies == set(map(str, files[1:5]))
    assert found.of_shared_uids == frozenset()


def test_a_uid_of_other_pictures_makes_no_copies_and_is_counted(tmp_path):
    first, second = (write(tmp_path / f"{seed}.dcm", data_set(picture(seed), SOPInstanceUID=UID)) for seed in (1, 2))
    again = write(tmp_path / "again.dcm", data_set(picture(2), JPEG2000Lossless, SOPInstanceUID=UID))
    turned = write(tmp_path / "turned.dcm", data_set(picture(1, 210, 240).T.copy(), SOPInstanceUID=UID))
    files = (first, second, again, turned)
    found = join(*files)
    assert groups(found, *files) == [0, 1, 1, 2]
    assert found.copies == {str(again)}
    assert found.of_shared_uids == set(map(str, files))


@pytest.mark.parametrize("uid", ["", " ", "\0"])
def test_blank_uids_name_nothing(tmp_path, uid):
    files = []
    for name in ("a", "b"):
        dataset = data_set(picture(1), SOPInstanceUID=uid, PatientID=name)
        dataset.file_meta.MediaStorageSOPInstanceUID = uid
        path = tmp_path / f"{name}.dcm"
        dataset.save_as(path, enforce_file_format=False)
        files.append(path)
    assert [read_header(file).uid_hash for file in files] == ["", ""]
    assert groups(join(*files), *files) == [0, 1]


def test_uid_of_the_file_meta_information_stands_in(tmp_path):
    stated = write(tmp_path / "a.dcm", data_set(picture(1), SOPInstanceUID=UID))
    dataset = data_set(picture(1), PatientID="changed")
    del dataset.SOPInstanceUID
    dataset.file_meta.MediaStorageSOPInstanceUID = UID
    path = tmp_path / "b.dcm"
    dataset.save_as(path, enforce_file_format=False)
    assert read_header(path).uid_hash == read_header(stated).uid_hash
    assert UID not in str(read_header(path))


def test_a_dummy_of_very_many_files_is_not_looked_at(tmp_path, monkeypatch):
    monkeypatch.setattr(instances, "MOST_OF_ONE_UID", 2)
    files = [write(tmp_path / f"{n}.dcm", data_set(picture(1), SOPInstanceUID=UID, PatientID=str(n))) for n in range(3)]
    found = join(*files)
    assert groups(found, *files) == [0, 1, 2]
    assert len(found.of_shared_uids) == 3
    assert groups(join(*files[:2]), *files[:2]) == [0, 0]


def test_links_missing_and_undecodable_files(tmp_path):
    whole = write(tmp_path / "a.dcm", data_set(picture(1), SOPInstanceUID=UID))
    link = tmp_path / "link.dcm"
    link.symlink_to(whole)
    packed = write(tmp_path / "b.dcm", data_set(picture(1), JPEG2000Lossless, SOPInstanceUID=UID))
    content = bytearray(packed.read_bytes())
    start = content.index(b"\xff\x4f\xff\x51") + 60  # behind the size: no decoder reads the rest
    content[start:-40] = bytes(len(content) - 40 - start)
    packed.write_bytes(content)
    gone = tmp_path / "gone.dcm"
    found = join(whole, link, packed, gone)
    assert groups(found, whole, link, packed) == [0, 0, 1]
    assert found.identities[str(gone)] is None
    assert found.copies == frozenset()
