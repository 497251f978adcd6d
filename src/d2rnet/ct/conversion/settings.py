"""Settings of the conversion of one CT volume. Published ones: workflow/presets/ct/."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from d2rnet.ct.volumes.volume import MAX_SPACING_MM, MIN_SPACING_MM
from d2rnet.settings import Section, setting

_SpacingMm = Annotated[float, Field(ge=MIN_SPACING_MM, le=MAX_SPACING_MM)]
_Side = Annotated[int, Field(ge=1, le=2048)]
_WindowHu = Annotated[float, Field(ge=-32768, le=32767)]


class CtConversionSettings(Section):
    """Conversion of one CT volume to an array: grid, window, bits, size."""

    place = "ct.data.conversion"

    spacing_mm: tuple[_SpacingMm, _SpacingMm, _SpacingMm] = setting((5.0, 3.75, 3.75))
    """Spacing of the converted volume, mm, as [z, y, x]. Default: the demo cohort's, coarse enough for a laptop, the same
    360 mm of the body as the released code of arXiv 2603.04878 (1.5 x 0.75 x 0.75 mm); presets have the published grids."""
    shape_zyx: tuple[_Side, _Side, _Side] = setting((72, 96, 96))
    """Voxels of the converted volume, as [z, y, x]; cropped or padded round the body."""
    window_hu: tuple[_WindowHu, _WindowHu] = setting((-1000.0, 1000.0))
    """Lowest and highest Hounsfield unit kept; what is beyond takes the end. Default as CT-CLIP: bone and calcification need
    the upper half."""
    bits: Literal[8, 16] = setting(8)
    """8: uint8, 0 to 255 over the window (7.8 HU a level of the default window; noise of a thin slice is 20 to 40). 16: int16,
    HU themselves."""
    antialias: bool = setting(True)
    """Widen the trilinear kernel to the new voxel where the grid becomes coarser (as torch's interpolate with antialias), so
    that noise is averaged and small nodules stay. false: plain trilinear, as the released codes."""
    compress: bool = setting(False)
    """Store gzip of the array (.npy.gz) where the disk is short: 0.3 to 0.85 of the size; without, readers map the file and
    take patches of it (docs/reference/ct-volumes.md has the table)."""

    @model_validator(mode="after")
    def _window_rises(self) -> Self:
        if self.window_hu[0] >= self.window_hu[1]:
            raise ValueError("window_hu: expected the lowest below the highest")
        return self
