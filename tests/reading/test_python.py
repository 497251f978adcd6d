"""Readings from Python: names complete, pictures in memory are read as their files are, a notebook shows the page."""

import html
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from ct_reading_samples import make_reading
from PIL import Image
from radiograph_samples import draw_chest
from reading_samples import FILES

import d2rnet
from d2rnet.errors import DatasetError
from d2rnet.reading import ct_page
from d2rnet.reading.cxr import Models
from d2rnet.reading.radiograph_page import page_text


def test_names_complete_before_anything_heavy_is_imported() -> None:
    code = "import d2rnet, sys; print(*dir(d2rnet)); sys.exit('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0 and set(d2rnet.__all__) <= set(done.stdout.split())


def test_editors_are_told_that_there_are_types() -> None:
    assert (Path(d2rnet.__file__).parent / "py.typed").is_file()


def test_models_are_shown_in_a_line_and_not_layer_by_layer(loaded: Models) -> None:
    assert "Conv2d" not in repr(loaded) and "max_side_px" in repr(loaded)


@pytest.mark.parametrize("make", [np.asarray, Image.fromarray], ids=["array", "PIL"])
def test_picture_in_memory_is_read_as_its_file(finished_run: Path, loaded: Models, make) -> None:
    file = finished_run / "images" / FILES["front"]
    expected = loaded.read(file)
    with Image.open(file) as image:
        picture = make(np.asarray(image))
    reading = loaded.read(picture)
    assert reading.boxes == expected.boxes and reading.hypothesis == expected.hypothesis and len(reading.boxes) > 1
    assert reading.name == "picture" and np.array_equal(reading.images[0].pixels, expected.images[0].pixels)
    assert loaded.read(picture, name="ward/case 1").name == "ward/case 1"


def test_study_may_mix_files_and_arrays(finished_run: Path, loaded: Models) -> None:
    file = finished_run / "images" / FILES["front"]
    with Image.open(finished_run / "images" / FILES["tall"]) as image:
        tall = np.asarray(image)
    expected = loaded.read_study([file, finished_run / "images" / FILES["tall"]])
    reading = loaded.read_study([file, tall], name="both")
    assert reading.boxes == expected.boxes and [view.path.name for view in reading.images] == ["front.png", "both_2.png"]


def test_deep_and_coloured_arrays_are_read(loaded: Models) -> None:
    grey = draw_chest((120, 100), 1)
    of_grey, of_deep, of_colour = (
        loaded.read(array).images[0].pixels
        for array in (grey, grey.astype(np.uint16) * 257, np.repeat(grey[..., None], 3, axis=2))
    )
    assert np.array_equal(of_colour, of_grey)
    assert np.corrcoef(of_deep.ravel(), of_grey.ravel())[0, 1] > 0.999


@pytest.mark.parametrize("array", [np.zeros((4, 4)), np.zeros((2, 9, 9), np.uint8), np.zeros((0, 9), np.uint8)])
def test_other_arrays_are_refused(loaded: Models, array: np.ndarray) -> None:
    with pytest.raises(DatasetError, match=rf"shape {re.escape(str(array.shape))} and type {array.dtype}; expected"):
        loaded.read(array)


def test_notebook_shows_the_page_of_a_radiograph(finished_run: Path, loaded: Models) -> None:
    reading = loaded.read(finished_run / "images" / FILES["front"])
    shown = reading._repr_html_()
    [page] = re.findall(r'^<iframe srcdoc="([^"]*)" sandbox="allow-scripts"', shown)
    assert html.unescape(page) == page_text(reading)


def test_notebook_shows_the_page_of_a_ct() -> None:
    reading = make_reading()
    [page] = re.findall(r'^<iframe srcdoc="([^"]*)"', reading._repr_html_())
    assert html.unescape(page) == ct_page.page_text(reading)
