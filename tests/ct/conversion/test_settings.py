"""Settings of the conversion, and the published ones that are shipped as presets."""

import pytest
import yaml

from d2rnet.ct.conversion.settings import CtConversionSettings
from d2rnet.errors import ConfigError

PUBLISHED = {  # spacing z, y, x in mm; voxels; window
    "released_code": ((1.5, 0.75, 0.75), (240, 480, 480), (-1000.0, 200.0)),
    "ct_clip": ((1.5, 0.75, 0.75), (240, 480, 480), (-1000.0, 1000.0)),
    "ct2rep": ((1.5, 0.75, 0.75), (240, 480, 480), (-1000.0, 200.0)),
    "fvlm": ((3.0, 1.0, 1.0), (112, 256, 352), (-1150.0, 350.0)),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_presets_are_the_published_settings(repository, name):
    content = yaml.safe_load((repository / "workflow" / "presets" / "ct" / f"{name}.yaml").read_text(encoding="utf-8"))
    settings = CtConversionSettings.read(content["ct"]["data"]["conversion"])
    assert (settings.spacing_mm, settings.shape_zyx, settings.window_hu) == PUBLISHED[name]
    assert not settings.antialias


def test_own_grids_have_the_field_of_view_of_the_released_code(repository):
    own = yaml.safe_load((repository / "workflow/presets/ct/ct_rate.yaml").read_text(encoding="utf-8"))["ct"]["data"][
        "conversion"
    ]
    for settings in (CtConversionSettings(), CtConversionSettings.read(own)):
        extents = [side * mm for side, mm in zip(settings.shape_zyx, settings.spacing_mm, strict=True)]
        assert extents == [360.0, 360.0, 360.0]


@pytest.mark.parametrize(
    "overlay",
    [
        {"window_hu": [200.0, -1000.0]},
        {"window_hu": [0.0, 0.0]},
        {"spacing_mm": [0.0, 1.0, 1.0]},
        {"spacing_mm": [1.0, 1.0]},
        {"shape_zyx": [0, 10, 10]},
        {"bits": 12},
        {"unknown": 1},
    ],
)
def test_settings_out_of_range_are_refused(overlay):
    with pytest.raises(ConfigError):
        CtConversionSettings.read(overlay)
