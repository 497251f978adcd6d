"""Malformed radiographs: DICOM, PNG and JPG."""

import io
import struct
import zlib
from functools import partial
from pathlib import Path

import good_files as good
import numpy as np
from case_files import damaged_cases, no_files, put, put_folder, put_link, put_pipe
from hostile_case import READ, REFUSED, SET_ASIDE, Case, Make
from PIL import Image, PngImagePlugin
from pydicom import dcmread
from pydicom.encaps import encapsulate
from pydicom.uid import DeflatedExplicitVRLittleEndian, JPEG2000Lossless, JPEGBaseline8Bit

NAME = "chest.dcm"
BY_US = {  # refused by our bounds, before a decoder sees them
    "65,535 x 65,535 pixels in the header": "65535 x 65535 pixels",
    "a JPEG frame of 65,000 x 65,000": "component(s)",
    "a JPEG 2000 codestream of 10^9 pixels": "component(s)",
    "a deflated bomb, 2 MB for 450 MB": "unpack to more than",
}


def chunk(kind: bytes, data: bytes) -> bytes:
    """A PNG chunk with its checksum."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, data: bytes = b"", *, depth: int = 8, extra: bytes = b"") -> bytes:
    """A PNG whose header promises any size."""
    head = chunk(b"IHDR", struct.pack(">2I5B", width, height, depth, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + extra + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")


def jpeg_of_size(height: int, width: int) -> bytes:
    """A JPEG whose frame header promises any size."""
    data = bytearray(good.raster("JPEG"))
    frame = data.index(b"\xff\xc0")
    data[frame + 5 : frame + 9] = struct.pack(">2H", height, width)
    return bytes(data)


def dicom(**attributes: object) -> Make:
    """A raw DICOM file with other attributes."""
    return put(NAME, good.dicom(**attributes))  # type: ignore[arg-type]


def encapsulated(syntax: str, frame: bytes) -> Make:
    """A DICOM file with that compressed frame."""
    uid = {"JPEG": JPEGBaseline8Bit, "JPEG 2000": JPEG2000Lossless}[syntax]
    return put(NAME, good.dicom(uid, PixelData=encapsulate([frame])))


def without(*keywords: str) -> Make:
    """A raw DICOM file without some attributes."""
    dataset = dcmread(io.BytesIO(good.dicom()))
    for keyword in keywords:
        delattr(dataset, keyword)
    buffer = io.BytesIO()
    dataset.save_as(buffer)
    return put(NAME, buffer.getvalue())


def with_bytes(old: bytes, new: bytes) -> Make:
    """A raw DICOM file with some bytes exchanged."""
    data = good.dicom(WindowCenter="2048", WindowWidth="4096")
    assert data.count(old) == 1
    return put(NAME, data.replace(old, new))


def deflate_bomb(megabytes: int = 450) -> bytes:
    """A deflated DICOM file of two megabytes that unpacks to hundreds, behind a good beginning."""
    data = good.dicom(DeflatedExplicitVRLittleEndian)
    meta = 144 + int(dcmread(io.BytesIO(data)).file_meta.FileMetaInformationGroupLength)
    packer = zlib.compressobj(1, zlib.DEFLATED, -zlib.MAX_WBITS)
    head = packer.compress(zlib.decompress(data[meta:], -zlib.MAX_WBITS))
    return data[:meta] + head + b"".join(packer.compress(bytes(1 << 20)) for _ in range(megabytes)) + packer.flush()


def nested_sequences(depth: int) -> bytes:
    """A DICOM file with sequences in sequences, each of undefined length."""
    opened = struct.pack("<2H2s2sI", 0x0040, 0xA730, b"SQ", b"\0\0", 0xFFFFFFFF) + struct.pack(
        "<2HI", 0xFFFE, 0xE000, 0xFFFFFFFF
    )
    data = good.dicom()
    end = data.index(b"\xe0\x7f\x10\x00")
    return data[:end] + opened * depth + data[end:]


def codestream_of_size(height: int, width: int) -> bytes:
    """A JPEG 2000 codestream whose header promises any size."""
    from pydicom.encaps import get_frame

    data = bytearray(get_frame(dcmread(io.BytesIO(good.dicom(JPEG2000Lossless))).PixelData, 0, number_of_frames=1))
    start = data.index(b"\xff\x51")
    data[start + 6 : start + 14] = struct.pack(">2I", width, height)
    return bytes(data)


def png_with_text(megabytes: int) -> bytes:
    """A PNG with a compressed comment that unpacks to much more."""
    return png(8, 8, bytes(9 * 8), extra=chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(megabytes << 20))))


def animated() -> bytes:
    """A PNG of two pictures."""
    buffer, info = io.BytesIO(), PngImagePlugin.PngInfo()
    first, second = (Image.fromarray(np.full((8, 8), value, np.uint8)) for value in (10, 200))
    first.save(buffer, "PNG", save_all=True, append_images=[second], pnginfo=info)
    return buffer.getvalue()


def mixed_folder(folder: Path) -> Path:
    """Two good images, and four that cannot be read."""
    for name, data in (("a.png", good.raster("PNG")), ("b.dcm", good.dicom()), ("bomb.png", png(60000, 60000))):
        (folder / name).write_bytes(data)
    (folder / "cut.jpg").write_bytes(good.raster("JPEG")[:300])
    put_folder("folder.png")(folder)
    return put_pipe("pipe.dcm")(folder)


def cases() -> list[Case]:
    """All of them."""
    found = [*no_files("DICOM", NAME), *no_files("PNG, JPG", "chest.png")]
    for seed, (syntax, uid) in enumerate(good.DICOM_SYNTAXES.items(), start=1):
        found += damaged_cases("DICOM", NAME, partial(good.dicom, uid), seed=seed, what=f"{syntax}: ")
    for seed, kind in enumerate(("PNG", "JPEG"), start=11):
        found += damaged_cases("PNG, JPG", f"chest.{kind.lower()}", good.raster(kind), seed=seed, what=f"{kind}: ")
    for name, make in {
        "65,535 x 65,535 pixels in the header": dicom(Rows=65535, Columns=65535),
        "no rows": dicom(Rows=0),
        "a million frames": dicom(NumberOfFrames="1000000"),
        "200 samples a pixel": dicom(SamplesPerPixel=200),
        "40 bits stored in 16": dicom(BitsStored=40),
        "a palette": dicom(PhotometricInterpretation="PALETTE COLOR"),
        "a photometric interpretation that is none": dicom(PhotometricInterpretation="DOE^JOHN"),
        "no pixel data": without("PixelData"),
        "no size": without("Rows", "Columns"),
        "no bits stored": without("BitsStored"),
        "a rescale slope of zero": dicom(RescaleSlope="0", RescaleIntercept="0"),
        "sequences 3,000 deep": put(NAME, nested_sequences(3000)),
        "a deflated bomb, 2 MB for 450 MB": put(NAME, deflate_bomb),
        "a JPEG frame of 65,000 x 65,000": encapsulated("JPEG", jpeg_of_size(65000, 65000)),
        "a JPEG 2000 codestream of 10^9 pixels": encapsulated("JPEG 2000", codestream_of_size(32000, 32000)),
        "a frame that is no codestream": encapsulated("JPEG 2000", b"no codestream at all"),
        "a preamble and nothing else": put(NAME, bytes(128) + b"DICM"),
        "a transfer syntax that is a name": with_bytes(b"1.2.840.10008.1.2.1\0", b"DOE^JOHN 1961-07-04\0"),
        "an element longer than the file": with_bytes(b"DS\x04\x002048", b"DS\xf0\xff2048"),
        "text in place of an image": put(NAME, b"%PDF-1.7 no image"),
    }.items():
        found.append(Case("DICOM", name, make, record=BY_US.get(name, "")))
    no_number = with_bytes(b"2048", b"NaN?")
    found.append(Case("DICOM", "a window centre that is no number", no_number, expected=(READ,)))
    for name, make in {
        "PNG of 10^9 pixels in its header": put("chest.png", png(40000, 25000)),
        "PNG of 2^31 columns": put("chest.png", png(2**31 - 1, 1)),
        "PNG without rows": put("chest.png", png(50, 0)),
        "PNG whose pixels unpack to less than promised": put("chest.png", png(50, 60, bytes(100))),
        "PNG with a comment that unpacks to 100 MB": put("chest.png", partial(png_with_text, 100)),
        "PNG of an impossible bit depth": put("chest.png", png(50, 60, bytes(60 * 51), depth=7)),
        "PNG without its end": put("chest.png", good.raster("PNG")[:-12]),
        "JPG of 65,000 x 65,000 in its header": put("chest.jpg", jpeg_of_size(65000, 65000)),
        "JPG without its end": put("chest.jpg", good.raster("JPEG")[:-2]),
        "a GIF named PNG": put("chest.png", b"GIF89a" + bytes(60)),
        "an SVG with a script named PNG": put("chest.png", b"<svg onload='alert(1)'/>"),
        "a link to nowhere": put_link("chest.png", "nowhere.png"),
    }.items():
        found.append(Case("PNG, JPG", name, make))
    kinds = (REFUSED, READ)
    found.append(
        Case(
            "PNG, JPG", "PNG with megabytes behind its end", put("a.png", good.raster("PNG") + bytes(1 << 22)), expected=kinds
        )
    )
    found.append(Case("PNG, JPG", "PNG of two pictures", put("a.png", animated()), expected=kinds))
    found.append(Case("image conversion", "two good images among a bomb, a pipe, a folder and half a file", mixed_folder,
                      record="bomb.png", expected=(SET_ASIDE,), records=6))  # fmt: skip
    return found
