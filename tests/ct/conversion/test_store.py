"""Arrays of converted volumes: mapped or packed, whole or not there."""

import gzip

import numpy as np
import pytest

from d2rnet.ct.conversion.store import array_name, read_array, write_array
from d2rnet.errors import DatasetError


@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize("dtype", [np.uint8, np.int16])
def test_round_trip(tmp_path, dtype, compress):
    array = np.random.default_rng(0).integers(0, 200, (6, 7, 8)).astype(dtype)
    path = tmp_path / "folder" / array_name("train_1_a_1", compress=compress)
    write_array(path, array)
    found = read_array(path)
    assert np.array_equal(found, array) and found.dtype == dtype
    assert isinstance(found, np.memmap) != compress
    assert [other.name for other in path.parent.iterdir()] == [path.name]


def test_packed_array_is_plain_gzip_of_the_plain_file_and_the_same_every_time(tmp_path):
    array = np.zeros((6, 7, 8), np.uint8)
    for name in ("a.npy", "a.npy.gz", "b.npy.gz"):
        write_array(tmp_path / name, array)
    assert gzip.decompress((tmp_path / "a.npy.gz").read_bytes()) == (tmp_path / "a.npy").read_bytes()
    assert (tmp_path / "a.npy.gz").read_bytes() == (tmp_path / "b.npy.gz").read_bytes()


@pytest.mark.parametrize("name", ["a.npy", "a.npy.gz"])
def test_damaged_arrays_are_refused_by_name(tmp_path, name):
    path = tmp_path / name
    write_array(path, np.random.default_rng(0).integers(0, 255, (20, 20, 20)).astype(np.uint8))
    path.write_bytes(path.read_bytes()[:-300])
    with pytest.raises(DatasetError, match=name):
        read_array(path)


@pytest.mark.parametrize("array", [np.zeros((3, 4), np.uint8), np.zeros((3, 4, 5), np.float32)])
def test_other_arrays_are_refused(tmp_path, array):
    np.save(tmp_path / "a.npy", array)
    with pytest.raises(DatasetError, match="expected three axes of uint8 or int16"):
        read_array(tmp_path / "a.npy")


def test_nothing_stays_of_a_write_that_fails(tmp_path):
    with pytest.raises(ValueError, match="Object arrays cannot be saved"):
        write_array(tmp_path / "a.npy", np.array([[[object()]]]))
    assert list(tmp_path.iterdir()) == []
