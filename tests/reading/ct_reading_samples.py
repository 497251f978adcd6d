"""The reading of a drawn chest CT, made without any model: sentences of the demo's reports, attention of made-up patches."""

from functools import cache
from typing import Any

import numpy as np

from d2rnet.ct.conversion.grid import convert_volume
from d2rnet.ct.conversion.settings import CtConversionSettings
from d2rnet.ct.demo.phantom import draw_phantom, expose
from d2rnet.ct.demo.settings import CtDemoSettings
from d2rnet.ct.structures.table import load_table
from d2rnet.ct.volumes.volume import Volume
from d2rnet.reading.ct_content import CtSentence
from d2rnet.reading.ct_result import CtReading
from d2rnet.reading.ct_view import VolumeView, view_of

GRID = (6, 8, 8)
PEAK = (4, 3, 1)  # patch that each structure attends to most, shifted along x by its number
SENTENCES = (
    CtSentence("There is a nodule of 9 mm in the right upper lobe.", ("lung",)),
    CtSentence("Emphysematous changes are seen in both lungs.", ("lung",)),
    CtSentence("The heart is enlarged.", ("heart_mediastinum_vessels",)),
    CtSentence("There is no pleural or pericardial effusion.", ("pleura", "heart_mediastinum_vessels")),
    CtSentence("No lytic lesion is seen in the bones.", ("bone",)),
)
ORIGIN = {
    "models": {"structures": {"model.safetensors": "a" * 64}, "report_model": {"model.safetensors": "b" * 64}},
    "settings": {},
    "code": {"d2rnet": "0", "commit": None, "dirty": None},
    "device": "cpu: test",
}


@cache
def drawn_volume() -> Volume:
    """A drawn chest with a nodule and a large heart."""
    phantom = draw_phantom(
        np.random.default_rng(5), np.random.default_rng(6), CtDemoSettings(), labels=("Cardiomegaly", "Lung nodule")
    )
    hu = expose(phantom, np.random.default_rng(7), sharp=False)
    return Volume(hu, phantom.scan.spacing_zyx, "NIfTI-1", "already")


@cache
def drawn_view() -> tuple[VolumeView, dict[str, Any]]:
    """The drawn volume on a page, and the facts of its conversion."""
    facts = convert_volume(drawn_volume(), CtConversionSettings()).facts
    return view_of(drawn_volume(), facts, most_voxels=200_000), facts


def attention_of(structures: int) -> np.ndarray:
    """(S, gz, gy, gx): one peak a structure, at a patch of its own; the last structure attends to nothing."""
    places = np.stack(np.meshgrid(*map(np.arange, GRID), indexing="ij"), axis=-1)
    maps = []
    for number in range(structures):
        peak = np.array([*PEAK[:2], number % GRID[2]])
        maps.append(np.exp(-((places - peak) ** 2).sum(axis=-1) / 2))
    maps[-1] = np.zeros(GRID)
    return np.stack(maps).astype(np.float32) / 50


def make_reading(*, volume_view: VolumeView | None = None, **changes: object) -> CtReading:
    """The reading of the drawn volume, or of another view; changes replace its fields."""
    view, facts = drawn_view()
    structures = tuple(load_table("ten").structures)
    fields = {
        "name": "scan",
        "file": "scan.nii.gz",
        "volume": volume_view or view,
        "source": facts,
        "structures": structures,
        "attention": attention_of(len(structures)),
        "sentences": SENTENCES,
        "hypothesis": " ".join(sentence.text for sentence in SENTENCES),
        "log_prob": -4.5,
        "warnings": (),
        "origin": ORIGIN,
        "seconds": 1.5,
    }
    return CtReading(**{**fields, **changes})
