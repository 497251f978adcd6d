"""Malformed CT volumes: NIfTI, MetaImage, NRRD and folders of DICOM slices."""

import gzip
import struct
import zlib
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path

import nibabel as nib
import numpy as np
from case_files import damaged_cases, no_files, put
from hostile_case import READ, REFUSED, Case, Make
from pydicom import Dataset
from pydicom.encaps import encapsulate, get_frame
from pydicom.uid import JPEG2000Lossless, RLELossless
from volume_samples import SPACING_ZYX, affine_of, chest_slices, ct_slice, noisy_chest, write_series

PLAIN, PACKED = "chest.nii", "chest.nii.gz"
_DIM, _DATATYPE, _PIXDIM, _OFFSET, _SLOPE, _UNITS, _QFORM, _SFORM, _SROW, _MAGIC = (
    40,
    70,
    76,
    108,
    112,
    123,
    252,
    254,
    280,
    344,
)


@cache
def nifti(dtype: str = "<i2") -> bytes:
    """A plain NIfTI-1 file of a chest, axes L, P, S."""
    hu = noisy_chest()
    affine, _, _ = affine_of("LPS", hu.shape)
    image = nib.Nifti1Image(np.ascontiguousarray(hu.T).astype(dtype), affine)
    image.header.set_qform(affine, code=1)
    return image.to_bytes()


def changed(at: int, layout: str, *values: object, data: Callable[[], bytes] = nifti) -> bytes:
    """A plain NIfTI file with other bytes in its header."""
    damaged = bytearray(data())
    struct.pack_into("<" + layout, damaged, at, *values)
    return bytes(damaged)


def several(*changes: tuple[int, str, tuple[object, ...]]) -> bytes:
    """A plain NIfTI file with several changes."""
    damaged = bytearray(nifti())
    for at, layout, values in changes:
        struct.pack_into("<" + layout, damaged, at, *values)
    return bytes(damaged)


def with_values(first: float, dtype: str = "<f4") -> bytes:
    """A NIfTI file of floats whose first voxels are of one value."""
    data = bytearray(nifti(dtype))
    data[352 : 352 + 40] = np.full(10, first, dtype).tobytes()
    return bytes(data)


def from_hu(make: Callable[[np.ndarray], np.ndarray]) -> bytes:
    """A NIfTI file of what ``make`` turns HU into."""
    hu = noisy_chest()
    affine, _, _ = affine_of("LPS", hu.shape)
    return nib.Nifti1Image(np.ascontiguousarray(make(hu).T), affine).to_bytes()


def zeros_bomb() -> bytes:
    """A gzip file of some megabytes that inflates to two gigabytes, as its header says."""
    head = bytearray(nifti()[:352])
    struct.pack_into("<8h", head, _DIM, 3, 1024, 1024, 1024, 1, 1, 1, 1)
    packer = zlib.compressobj(1, zlib.DEFLATED, 31)
    return packer.compress(bytes(head)) + b"".join(packer.compress(bytes(1 << 24)) for _ in range(128)) + packer.flush()


def gzip_cases() -> dict[str, bytes | Callable[[], bytes]]:
    """Name -> damaged gzip files."""
    packed = gzip.compress(nifti(), 1, mtime=0)
    wrong_sum = bytearray(packed)
    wrong_sum[-8] ^= 0xFF
    return {
        "gzip without its last 1,000 bytes": packed[:-1000],
        "gzip without its checksum": packed[:-8],
        "gzip with a wrong checksum": bytes(wrong_sum),
        "gzip of a text": gzip.compress(b"no volume at all " * 100),
        "gzip of nothing": gzip.compress(b""),
        "text named .nii.gz": b"<html>404 not found</html>" * 50,
        "a download page in place of the file": b"version https://git-lfs.github.com/spec/v1\n",
        "gzip in gzip": gzip.compress(packed),
        "two gigabytes of zeros in some megabytes": zeros_bomb,
    }


def header_cases() -> dict[str, bytes]:
    """Name -> NIfTI files with one thing wrong."""
    nan, inf = float("nan"), float("inf")
    return {
        "bad magic": changed(_MAGIC, "4s", b"zzz\0"),
        "the header of a pair": changed(_MAGIC, "4s", b"ni1\0"),
        "10^12 voxels in the header": changed(_DIM, "8h", 3, 10000, 10000, 10000, 1, 1, 1, 1),
        "32,767 slices more than the file has": changed(_DIM, "8h", 3, 80, 56, 32767, 1, 1, 1, 1),
        "one slice more than the file has": changed(_DIM, "8h", 3, 80, 56, 41, 1, 1, 1, 1),
        "ten slices fewer than the file has": changed(_DIM, "8h", 3, 80, 56, 30, 1, 1, 1, 1),
        "a negative dimension": changed(_DIM, "8h", 3, 80, -56, 40, 1, 1, 1, 1),
        "a dimension of zero": changed(_DIM, "8h", 3, 80, 0, 40, 1, 1, 1, 1),
        "nine dimensions": changed(_DIM, "h", 9),
        "two dimensions": changed(_DIM, "8h", 2, 80, 56, 40, 1, 1, 1, 1),
        "four dimensions": changed(_DIM, "8h", 4, 80, 56, 20, 2, 1, 1, 1),
        "an unknown type": changed(_DATATYPE, "h", 77),
        "RGB": changed(_DATATYPE, "2h", 128, 24),
        "complex numbers": changed(_DATATYPE, "2h", 32, 64),
        "a type that disagrees with its bits": changed(_DATATYPE, "2h", 4, 8),
        "pixel sizes of zero and no s-form": several((_PIXDIM + 4, "3f", (0, 0, 0)), (_SFORM, "h", (0,))),
        "NaN as pixel size and no s-form": several((_PIXDIM + 4, "f", (nan,)), (_SFORM, "h", (0,))),
        "neither s-form nor q-form": several((_SFORM, "h", (0,)), (_QFORM, "h", (0,))),
        "an s-form of zeros and no q-form": several((_SROW, "12f", (0,) * 12), (_QFORM, "h", (0,))),
        "an s-form of NaN and no q-form": several((_SROW, "12f", (nan,) * 12), (_QFORM, "h", (0,))),
        "an s-form of one plane and no q-form": several((_SROW, "12f", (1.0, 2, 3, 0) * 3), (_QFORM, "h", (0,))),
        "s-form and q-form on different sides": changed(_SROW, "f", SPACING_ZYX[2]),
        "a sheared s-form": several((_SROW + 4, "f", (2.0,)), (_QFORM, "h", (0,))),
        "a spacing of 100 mm": several((_SROW + 40, "f", (100.0,)), (_QFORM, "h", (0,))),
        "a spacing of a micrometre": several((_SROW + 40, "f", (0.001,)), (_QFORM, "h", (0,))),
        "millimetres called metres": changed(_UNITS, "B", 1),
        "an unknown unit": changed(_UNITS, "B", 7),
        "an infinite slope": changed(_SLOPE, "2f", inf, 0.0),
        "a slope and an intercept of NaN": changed(_SLOPE, "2f", 1.0, nan),
        "a slope of 10^30": changed(_SLOPE, "2f", 1e30, 0.0),
        "voxels from byte 10 on": changed(_OFFSET, "f", 10.0),
        "voxels from byte NaN on": changed(_OFFSET, "f", nan),
        "voxels from byte 10^9 on": changed(_OFFSET, "f", 1e9),
        "half a header": nifti()[:200],
        "a header and nothing else": nifti()[:352],
        "NaN among the voxels": with_values(nan),
        "infinity among the voxels": with_values(inf),
    }


def value_cases() -> dict[str, bytes]:
    """Name -> NIfTI files whose numbers are no Hounsfield units."""
    return {
        "one value": from_hu(lambda hu: np.zeros_like(hu)),
        "air alone": from_hu(lambda hu: np.full_like(hu, -1000)),
        "noise alone": from_hu(lambda hu: np.random.default_rng(0).integers(-30000, 30000, hu.shape, np.int16)),
        "a mask": from_hu(lambda hu: (hu > -300).astype(np.uint8)),
        "a label map": from_hu(lambda hu: np.digitize(hu, [-900, -500, -100, 30, 300]).astype(np.int16)),
        "an 8-bit picture": from_hu(lambda hu: ((np.clip(hu, -1000, 400) + 1000) / 1400 * 255).astype(np.uint8)),
        "never below -200": from_hu(lambda hu: np.clip(hu, -200, 1000).astype(np.int16)),
        "raw values without their table": from_hu(lambda hu: hu + 1024),
        "HU shifted by -1024 once more": from_hu(lambda hu: hu - 1024),
        "intensities from 0 to 1": from_hu(lambda hu: ((np.clip(hu, -1000, 400) + 1000) / 1400).astype(np.float32)),
        "values beyond 16 bits": from_hu(lambda hu: hu.astype(np.int32) * 1000),
    }


def meta_image(**fields: object) -> bytes:
    """A MetaImage file with other fields."""
    hu = noisy_chest()
    said = {
        "ObjectType": "Image",
        "NDims": 3,
        "BinaryData": True,
        "BinaryDataByteOrderMSB": False,
        "CompressedData": False,
        "TransformMatrix": "1 0 0 0 1 0 0 0 1",
        "ElementSpacing": "3.5 4 5",
        "DimSize": "80 56 40",
        "ElementType": "MET_SHORT",
        **fields,
        "ElementDataFile": fields.get("ElementDataFile", "LOCAL"),
    }
    data = zlib.compress(hu.tobytes()) if said["CompressedData"] is True else hu.tobytes()
    return "".join(f"{key} = {value}\n" for key, value in said.items()).encode() + data


def nrrd(encoding: str = "gzip", sizes: str = "80 56 40", extra: str = "") -> bytes:
    """An NRRD file."""
    data = noisy_chest().tobytes()
    text = (
        f"NRRD0004\ntype: short\ndimension: 3\nspace: left-posterior-superior\nsizes: {sizes}\n"
        "space directions: (3.5,0,0) (0,4,0) (0,0,5)\nkinds: domain domain domain\nendian: little\n"
        f"encoding: {encoding}\nspace origin: (0,0,0)\n{extra}\n"
    )
    return text.encode() + (gzip.compress(data) if encoding == "gzip" else data)


def other_cases() -> dict[str, Make]:
    """Name -> malformed MetaImage and NRRD files."""
    packed = meta_image(CompressedData=True)
    found = {
        "MetaImage cut off": meta_image()[:-5000],
        "MetaImage cut off by one byte": meta_image()[:-1],
        "MetaImage, compressed, cut off": packed[:-3000],
        "MetaImage with bytes behind its end": meta_image() + bytes(100),
        "MetaImage of 10^12 voxels": meta_image(DimSize="10000 10000 10000"),
        "MetaImage of 4 dimensions": meta_image(NDims=4, DimSize="80 56 20 2", ElementSpacing="3.5 4 5 1"),
        "MetaImage without sizes": meta_image(DimSize=""),
        "MetaImage of colours": meta_image(ElementNumberOfChannels=3, DimSize="80 56 13"),
        "MetaImage with a spacing of zero": meta_image(ElementSpacing="3.5 0 5"),
        "MetaImage with negative sizes": meta_image(DimSize="80 -56 40"),
        "MetaImage with text for voxels": meta_image(BinaryData=False),
        "MetaImage that names another folder's file": meta_image(ElementDataFile="../../etc/passwd"),
        "MetaImage that names a file that is not there": meta_image(ElementDataFile="chest.raw"),
        "MetaImage that names a list of files": meta_image(ElementDataFile="slice%03d.raw 0 39 1"),
        "MetaImage with sheared directions": meta_image(TransformMatrix="1 0.5 0 0 1 0 0 0 1"),
        "MetaImage with a header of -5 bytes": meta_image(HeaderSize=-5),
    }
    made = {name: put("chest.mha", data) for name, data in found.items()}
    nrrds = {
        "NRRD, gzip, cut off": nrrd()[:-3000],
        "NRRD cut off": nrrd("raw")[:-3000],
        "NRRD of 10^12 voxels": nrrd("raw", "10000 10000 10000"),
        "NRRD in an encoding of its own": nrrd("rot13"),
        "NRRD with bytes to skip": nrrd("raw", extra="byte skip: 1000\n"),
        "NRRD that names another folder's file": nrrd("raw", extra="data file: ../other.raw\n"),
        "NRRD of two sizes": nrrd("raw", "80 56"),
    }
    return made | {name: put("chest.nrrd", data) for name, data in nrrds.items()}


def series(change: Callable[[list[Dataset]], list[Dataset] | None]) -> Make:
    """A folder of slices, changed; ``change`` works in place or returns other slices."""

    def make(folder: Path) -> Path:
        slices = chest_slices()
        return write_series(folder / "series", change(slices) or slices)

    return make


def every(**attributes: object) -> Make:
    """A series with other attributes in every slice."""

    def change(slices: list[Dataset]) -> None:
        for dataset in slices:
            for keyword, value in attributes.items():
                setattr(dataset, keyword, value)

    return series(change)


def one(**attributes: object) -> Make:
    """A series with other attributes in its eighth slice."""

    def change(slices: list[Dataset]) -> None:
        for keyword, value in attributes.items():
            setattr(slices[7], keyword, value)

    return series(change)


def removed(*keywords: str) -> Make:
    """A series whose eighth slice lacks attributes."""

    def change(slices: list[Dataset]) -> None:
        for keyword in keywords:
            delattr(slices[7], keyword)

    return series(change)


def codestream(slices: list[Dataset], *, height: int, width: int) -> None:
    """Give the eighth slice a JPEG 2000 codestream that promises any size."""
    slices[7].compress(JPEG2000Lossless, generate_instance_uid=False)
    frame = bytearray(get_frame(slices[7].PixelData, 0, number_of_frames=1))
    start = frame.index(b"\xff\x51")
    frame[start + 6 : start + 14] = struct.pack(">2I", width, height)
    slices[7].PixelData = encapsulate([bytes(frame)])


def cut_run_lengths(slices: list[Dataset]) -> None:
    """Give the eighth slice run lengths that end early."""
    slices[7].compress(RLELossless, generate_instance_uid=False)
    frame = get_frame(slices[7].PixelData, 0, number_of_frames=1)
    slices[7].PixelData = encapsulate([frame[: len(frame) // 2]])


def doubled(slices: list[Dataset]) -> list[Dataset]:
    """Two different slices in one place."""
    return [*slices, ct_slice(np.full((56, 80), 1000), 7)]


def of_two_sizes(slices: list[Dataset]) -> list[Dataset]:
    """Some slices of another size."""
    return [*slices[:20], *[ct_slice(np.zeros((40, 40)), number) for number in range(20, 40)]]


def cut_slice(folder: Path) -> Path:
    """One file of a series cut off."""
    path = write_series(folder / "series", chest_slices())
    file = path / "011.dcm"
    file.write_bytes(file.read_bytes()[:-2000])
    return path


def noise_slice(folder: Path) -> Path:
    """One file of a series is a DICOM prefix and noise."""
    path = write_series(folder / "series", chest_slices())
    (path / "011.dcm").write_bytes(bytes(128) + b"DICM" + np.random.default_rng(0).bytes(5000))
    return path


def without_ct(folder: Path) -> Path:
    """A folder of other things."""
    (folder / "series").mkdir()
    (folder / "series" / "readme.txt").write_text("no slices")
    (folder / "series" / "loop").symlink_to(folder / "series" / "loop")
    return folder / "series"


def series_cases() -> dict[str, Make]:
    """Name -> malformed series."""
    return {
        "no DICOM file": without_ct,
        "one file cut off": cut_slice,
        "one file of noise": noise_slice,
        "a single slice": series(lambda slices: slices[:1]),
        "three missing slices": series(lambda slices: slices[:9] + slices[10:20] + slices[22:]),
        "a gap of half the chest": series(lambda slices: slices[:10] + slices[30:]),
        "two slices in one place": series(doubled),
        "slices of two sizes": series(of_two_sizes),
        "one slice without a position": removed("ImagePositionPatient"),
        "one slice without pixel spacing": removed("PixelSpacing"),
        "one slice without pixels": removed("PixelData"),
        "one slice of 12 bits in 12": one(BitsAllocated=12, BitsStored=12, HighBit=11),
        "one slice with a slope and no intercept": removed("RescaleIntercept"),
        "one slice turned by 90 degrees": one(ImageOrientationPatient=[0, 1, 0, -1, 0, 0]),
        "one slice of another pixel spacing": one(PixelSpacing=[1.0, 1.0]),
        "one slice 50 mm aside": one(ImagePositionPatient=[-90.0, -112.0, -65.0]),
        "a slope of zero": one(RescaleSlope="0"),
        "an orientation of zeros": every(ImageOrientationPatient=[0, 0, 0, 0, 0, 0]),
        "a position of two numbers": one(ImagePositionPatient=[0.0, 1.0]),
        "all slices in one place": every(ImagePositionPatient=[0.0, 0.0, 0.0]),
        "a pixel spacing of zero": every(PixelSpacing=[0.0, 0.0]),
        "colour": every(SamplesPerPixel=3, PhotometricInterpretation="RGB"),
        "a million frames": one(NumberOfFrames="1000000"),
        "65,535 x 65,535 pixels": every(Rows=65535, Columns=65535),
        "magnetic resonance": every(Modality="MR"),
        "scouts alone": every(ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"]),
        "secondary captures alone": every(SOPClassUID="1.2.840.10008.5.1.4.1.1.7"),
        "a JPEG 2000 codestream of 10^9 pixels": series(partial(codestream, height=32000, width=32000)),
        "run lengths that end early": series(cut_run_lengths),
        "another rescale than the values have": every(RescaleIntercept="0"),
    }


def cases() -> list[Case]:
    """All of them."""
    found = no_files("CT volume", PACKED)
    found += damaged_cases("CT volume", PLAIN, nifti, seed=41, what="NIfTI: ")
    found += damaged_cases("CT volume", PACKED, lambda: gzip.compress(nifti(), 1, mtime=0), seed=42, what="NIfTI, gzip: ")
    found += damaged_cases("CT volume", "chest.mha", meta_image, seed=43, what="MetaImage: ")
    found += damaged_cases("CT volume", "chest.nrrd", nrrd, seed=44, what="NRRD: ")
    found += [Case("CT volume", name, put(PLAIN, data)) for name, data in {**header_cases(), **value_cases()}.items()]
    found += [Case("CT volume", name, put(PACKED, data)) for name, data in gzip_cases().items()]
    found += [Case("CT volume", name, make) for name, make in other_cases().items()]
    found += [Case("CT series", name, make) for name, make in series_cases().items()]
    kinds = (REFUSED, READ)
    found.append(Case("CT volume", "a plain file named .nii.gz", put(PACKED, nifti()), expected=kinds))
    return found
