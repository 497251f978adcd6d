"""What becomes of every real and odd CT that is beside the project: file, outcome, reason. Not collected by pytest.

Usage: python tests/ct/volumes/real_inputs.py (writes the table into docs/reference/ct-volumes.md; the files are in the folder
that D2RNET_SHARED names)
"""

import os
import re
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path

from d2rnet.ct.conversion.grid import convert_volume
from d2rnet.ct.conversion.settings import CtConversionSettings
from d2rnet.ct.volumes.reader import read_chest_volume
from d2rnet.ct.volumes.settings import VolumeSettings
from d2rnet.errors import DatasetError
from d2rnet.files.atomic import write_text

PAGE = Path(__file__).resolve().parents[3] / "docs" / "reference" / "ct-volumes.md"
SUFFIXES = (".nii.gz", ".mha")
PACKED_HEAD = "ct_real/ge_head_tilt/ge_head_tilt.tar.xz"


@dataclass(frozen=True)
class Outcome:
    """What became of one file: converted with these notes, or refused for this reason."""

    name: str
    is_converted: bool
    said: str


def inputs(data: Path, scratch: Path) -> dict[str, Path]:
    """Name -> volume: every NIfTI and MetaImage file, every folder of slices, the packed head unpacked."""
    found = {str(path.relative_to(data)): path for suffix in SUFFIXES for path in data.glob(f"ct_*/**/*{suffix}")}
    found |= {str(path.parent.relative_to(data)): path.parent for path in data.glob("ct_*/**/*.dcm")}
    with tarfile.open(data / PACKED_HEAD) as packed:
        packed.extractall(scratch, filter="data")
    return dict(sorted(found.items())) | {str(Path(PACKED_HEAD).parent): scratch}


def outcome_of(name: str, path: Path) -> Outcome:
    """Read, gate and convert one volume with the default settings."""
    try:
        volume = read_chest_volume(path, VolumeSettings())
    except DatasetError as error:
        reason = re.sub(r"^\S+: got (.*)$", r"\1", str(error), flags=re.DOTALL)
        return Outcome(name, False, reason.partition("; expected")[0])
    converted = convert_volume(volume, CtConversionSettings())
    size = " x ".join(map(str, volume.hu.shape))
    mm = " x ".join(f"{side:.3g}" for side in volume.spacing_mm)
    assert converted.array.shape == CtConversionSettings().shape_zyx
    return Outcome(name, True, " ".join([f"{size} at {mm} mm, {volume.hu_source}.", *volume.notes]))


def outcomes(data: Path) -> list[Outcome]:
    """All of them."""
    with tempfile.TemporaryDirectory() as scratch:
        return [outcome_of(name, path) for name, path in inputs(data, Path(scratch)).items()]


def table(found: list[Outcome]) -> str:
    """The outcomes as a Markdown table."""
    rows = [f"| {item.name} | {'converted' if item.is_converted else 'refused'} | {item.said} |" for item in found]
    return "\n".join(["| file | outcome | what was found |", "|---|---|---|", *rows])


def main() -> None:
    """Write the table into the page."""
    found = outcomes(Path(os.environ["D2RNET_SHARED"], "data"))
    page = PAGE.read_text(encoding="utf-8")
    pattern = r"(<!-- begin: real -->\n).*?(<!-- end: real -->)"
    write_text(PAGE, re.sub(pattern, lambda match: f"{match[1]}\n{table(found)}\n\n{match[2]}", page, flags=re.DOTALL))


if __name__ == "__main__":
    main()
