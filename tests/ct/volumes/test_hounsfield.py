"""Whether numbers are Hounsfield units: both releases of CT-RATE, every contradiction."""

import gzip

import numpy as np
import pytest
from volume_samples import noisy_chest, write_nifti

from d2rnet.ct.volumes.hounsfield import sample_of, to_hounsfield
from d2rnet.ct.volumes.reader import Rescale, read_volume
from d2rnet.errors import DatasetError

NAN = float("nan")


@pytest.fixture
def hu() -> np.ndarray:
    return noisy_chest()


@pytest.mark.parametrize("intercept", [-1024.0, -8192.0, -1000.0])
def test_first_release_is_scaled_by_its_table(tmp_path, hu, intercept):
    path = write_nifti(tmp_path / "chest.nii.gz", hu - int(intercept))
    volume = read_volume(path, rescale=Rescale(1.0, intercept))
    assert np.array_equal(volume.hu, hu)
    assert volume.hu_source == f"raw, by the table's slope 1, intercept {intercept:g}"
    assert np.array_equal(read_volume(path, hu="raw", rescale=Rescale(1.0, intercept)).hu, hu)


@pytest.mark.parametrize("intercept", [-1024.0, -8192.0])
def test_second_release_is_left_alone_though_the_table_has_the_old_numbers(tmp_path, hu, intercept):
    path = write_nifti(tmp_path / "chest.nii.gz", hu)
    volume = read_volume(path, rescale=Rescale(1.0, intercept))
    assert np.array_equal(volume.hu, hu)
    assert volume.hu_source == "already"
    assert f"slope 1 and intercept {intercept:g} of the table were not applied" in volume.notes[0]


def test_table_of_slope_two(tmp_path, hu):
    stored = (np.rint(hu / 2) + 512).astype(np.int16)
    volume = read_volume(write_nifti(tmp_path / "chest.nii.gz", stored), rescale=Rescale(2.0, -1024.0))
    assert np.abs(volume.hu.astype(int) - hu).max() <= 1


@pytest.mark.parametrize("rescale", [None, Rescale(NAN, NAN), Rescale(1.0, NAN), Rescale(NAN, -8192.0), Rescale(1.0, 0.0)])
def test_a_table_that_says_nothing_changes_nothing(tmp_path, hu, rescale):
    volume = read_volume(write_nifti(tmp_path / "chest.nii.gz", hu), rescale=rescale)
    assert np.array_equal(volume.hu, hu)
    assert (volume.hu_source, volume.notes) == ("already", ())


def test_scaling_in_header_and_table_is_applied_once(tmp_path, hu):
    path = write_nifti(tmp_path / "chest.nii.gz", hu + 1024)
    data = bytearray(gzip.decompress(path.read_bytes()))
    data[112:120] = np.array([1.0, -1024.0], "<f4").tobytes()
    (tmp_path / "scaled.nii").write_bytes(data)
    for rescale in (None, Rescale(1.0, -1024.0)):
        volume = read_volume(tmp_path / "scaled.nii", rescale=rescale)
        assert np.array_equal(volume.hu, hu)
    assert volume.hu_source.startswith("as the header has it")


@pytest.mark.parametrize(
    ("shift", "choice", "rescale", "complaint"),
    [
        (0, "raw", Rescale(1.0, -1024.0), "hu: raw against the values"),
        (1024, "already", Rescale(1.0, -1024.0), "hu: already against the values"),
        (0, "raw", None, "hu: raw without slope and intercept"),
        (1024, "auto", None, "values never below"),
        (1024, "auto", Rescale(1.0, -8192.0), "values never below"),
        (-1024, "auto", Rescale(1.0, -1024.0), "values that are no body"),
        (0, "auto", Rescale(0.0, -1024.0), "slope 0 and intercept -1024 in the metadata table"),
        (0, "raw", Rescale(1.0, NAN), "hu: raw without slope and intercept"),
        (0, "auto", Rescale(1.0, -60.0), "a body with and without the table's scaling"),
    ],
)
def test_contradictions_are_refused_by_name(tmp_path, hu, shift, choice, rescale, complaint):
    path = write_nifti(tmp_path / "chest.nii.gz", hu + shift)
    with pytest.raises(DatasetError, match=complaint) as error:
        read_volume(path, hu=choice, rescale=rescale)
    assert str(path) in str(error.value)


def test_padding_of_the_field_of_view_becomes_air(tmp_path, hu):
    padded = hu.copy()
    padded[:, :5] = -3024
    volume = read_volume(write_nifti(tmp_path / "chest.nii.gz", padded))
    assert (volume.hu[:, :5] == -1024).all()
    assert np.array_equal(volume.hu[:, 5:], hu[:, 5:])
    assert volume.notes == (f"{padded[:, :5].size} voxels ({5 / 56:.2%}) below -1250 HU are padding: set to -1024.",)


@pytest.mark.parametrize("dtype", [">i2", "<i4", "<f4", "<f8", "<i8", "<u2"])
def test_every_type_of_number_is_the_same_volume(tmp_path, hu, dtype):
    import nibabel as nib
    from volume_samples import affine_of

    raised = hu.astype(int) + (1024 if dtype == "<u2" else 0)
    image = nib.Nifti1Image(np.ascontiguousarray(raised.T).astype(dtype), affine_of("LPS", hu.shape)[0], dtype=np.dtype(dtype))
    (tmp_path / "chest.nii").write_bytes(image.to_bytes())
    rescale = Rescale(1.0, -1024.0) if dtype == "<u2" else None
    volume = read_volume(tmp_path / "chest.nii", rescale=rescale)
    assert np.array_equal(volume.hu, hu)


def test_fractions_are_rounded(tmp_path, hu):
    import nibabel as nib
    from volume_samples import affine_of

    image = nib.Nifti1Image(np.ascontiguousarray(hu.T) + np.float32(0.4), affine_of("LPS", hu.shape)[0])
    (tmp_path / "chest.nii").write_bytes(image.to_bytes())
    assert np.array_equal(read_volume(tmp_path / "chest.nii").hu, hu)


@pytest.mark.parametrize("layout", ["columns", "rows", "slices"])
def test_the_sample_is_of_the_whole_volume(tmp_path, layout):
    """Only a stripe in the middle shows a body; its share in the sample is that in the volume."""
    shape = (61, 160, 160)
    rng = np.random.default_rng(1)
    values = np.full(shape, -1024, np.int16)
    axis = {"slices": 0, "rows": 1, "columns": 2}[layout]
    stripe = [slice(None)] * 3
    stripe[axis] = slice(shape[axis] // 2, shape[axis] // 2 + max(3, shape[axis] // 12))
    values[tuple(stripe)] = rng.integers(-100, 100, values[tuple(stripe)].shape)
    assert to_hounsfield(tmp_path, values, choice="auto", table=None, header=None)[1] == "already"
    sample = sample_of(values)
    share = float((values >= -200).mean())
    assert float((sample >= -200).mean()) == pytest.approx(share, abs=0.005)


def test_a_volume_of_as_many_voxels_as_sampled_times_a_row_is_not_one_column():
    """As 512 x 512 x 977, of which every 512th voxel is one column of air beside the patient; here smaller."""
    stripes = np.ascontiguousarray(np.broadcast_to(np.arange(64, dtype=np.int16), (7820, 64, 64)))
    assert len(np.unique(sample_of(stripes))) == 64


@pytest.mark.parametrize(("top", "is_said"), [(70, True), (55, True), (3071, False)])
def test_a_volume_that_was_windowed_is_noted(tmp_path, hu, top, is_said):
    """Some published converters store volumes cut at 200 HU: bone and calcifications are gone."""
    clipped = np.clip(hu, -1000, top)
    volume = read_volume(write_nifti(tmp_path / "chest.nii.gz", clipped))
    assert np.array_equal(volume.hu, clipped)
    share = (clipped == top).mean()
    said = f"windowed: {share:.1%} of the voxels have the highest value, {top} HU; expected few."
    assert volume.notes == ((said,) if is_said else ())
