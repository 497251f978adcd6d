"""One of each page that people look at: galleries, comparisons and readings, of radiographs and of chest CT."""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import ct_gallery_samples as ct_samples
import gallery_samples as samples
import numpy as np
from ct_reading_samples import make_reading

from d2rnet.gallery.build import write_gallery
from d2rnet.gallery.comparison import compare_and_show
from d2rnet.gallery.ct_render import render_ct_gallery
from d2rnet.gallery.pictures import radiograph_pictures
from d2rnet.gallery.settings import CompareSettings, PageSettings
from d2rnet.gallery.studies import Answer, Study
from d2rnet.reading import ct_page, radiograph_page
from d2rnet.reading.content import Box, Content, Sentence, View

COUNT = 12
IMAGES = 3  # of the first study
ORIGIN = {
    "models": {"detector": {"model_final.pth": "a" * 64}, "report_model": {"model.safetensors": "b" * 64}},
    "settings": {},
    "code": {"d2rnet": "0", "commit": None, "dirty": None},
    "device": "cpu: test",
}


def make_pages(folder: Path) -> dict[str, Path]:
    """Write all pages below ``folder``; return name -> file."""
    return {
        "gallery": gallery_page(folder / "gallery"),
        "compare": compare_page(folder / "compare"),
        "reading": reading_page(folder / "reading"),
        "ct gallery": ct_gallery_page(folder / "ct_gallery"),
        "ct compare": ct_compare_page(folder / "ct_compare"),
        "ct reading": ct_reading_page(folder / "ct_reading"),
    }


def gallery_page(folder: Path, boxes: list[list[float]] | None = None) -> Path:
    """Twelve radiographs of eleven studies, the first entry with several images; ``boxes``: other ones than usual."""
    studies = samples.studies(COUNT)
    studies[1] = replace(studies[1], study_id=studies[0].study_id)
    sizes = {"heights": [samples.HEIGHT] * IMAGES, "widths": [samples.WIDTH] * IMAGES}
    studies[0].entry.update(image_path=[f"i{image}.png" for image in range(IMAGES)], box_image=[0, 1], **sizes)
    if boxes:
        studies[0].entry.update(boxes=boxes, box_image=[0, 0])
    samples.draw_images(folder / "images", COUNT)
    pictures = radiograph_pictures([study.entry for study in studies], folder / "images", PageSettings(), workers=1)
    return _written(folder, studies, pictures)


def compare_page(folder: Path) -> Path:
    """Two runs on eight studies beside each other."""
    studies = samples.studies(8)
    both = [
        Study(
            one.name,
            one.study_id,
            one.reference,
            (one.answers[0], Answer(one.reference, (), {"rouge_l": 1.0, "bleu_4": 0.2})),
            one.entry,
        )
        for one in studies
    ]
    samples.draw_images(folder / "images", len(both))
    pictures = radiograph_pictures([study.entry for study in both], folder / "images", PageSettings(), workers=1)
    corpus = [["rouge_l", "ROUGE-L", [[0.5, None], [0.6, None]]]]
    return _written(folder, both, pictures, mode="compare", systems=["A: one", "B: two"], sort="size:rouge_l", corpus=corpus)


def _written(folder: Path, studies: list[Study], pictures: Iterable[Any], **meta: Any) -> Path:
    write_gallery(
        studies, pictures, output=folder, meta=samples.meta(**meta), known=len(studies), how="", settings=PageSettings()
    )
    return folder / "index.html"


def ct_gallery_page(folder: Path) -> Path:
    """Three chest CTs."""
    render_ct_gallery(**ct_samples.write_run(folder), output=folder / "out", settings=PageSettings())
    return folder / "out" / "index.html"


def ct_compare_page(folder: Path) -> Path:
    """Two runs on three chest CTs: texts alone."""
    files = ct_samples.write_run(folder)
    compare_and_show(
        run_a=files["generated"],
        run_b=files["generated"],
        studies="same",
        annotation=None,
        image_root=None,
        gallery_studies=len(ct_samples.CASES),
        gallery_metric="rouge_l",
        output=folder / "out",
        workers=1,
        settings=CompareSettings(meteor=False, bootstrap_samples=20),
        modality="ct",
    )
    return folder / "out" / "gallery" / "index.html"


BOXES = (
    Box(0, "Cardiomegaly", 0.91, (200.0, 500.0, 400.0, 300.0)),
    Box(0, "Nodule/Mass", 0.55, (100.5, 100.25, 80.0, 60.0)),
    Box(0, "Pleural effusion", 0.52, (20.0, 700.0, 150.0, 200.0)),
)


def reading_page(folder: Path, boxes: tuple[Box, ...] = BOXES) -> Path:
    """A radiograph with its boxes."""
    sentences = (Sentence("The heart is enlarged.", (0, 1), 0, (0,)), Sentence("No effusion.", (), 1))
    grey = np.tile(np.linspace(30, 190, 800).astype(np.uint8), (1000, 1))
    reading = Content(
        "chest",
        (View(Path("chest.png"), "PA", grey),),
        boxes,
        sentences,
        "the heart is enlarged . no effusion .",
        -1.5,
        ("Trained on synthetic drawings: on a real radiograph every finding is meaningless.",),
        ORIGIN,
        0.25,
    )
    return _file(folder, radiograph_page.page_text(reading))


def ct_reading_page(folder: Path) -> Path:
    """A drawn chest CT."""
    return _file(folder, ct_page.page_text(make_reading(warnings=("An odd kernel.",))))


def _file(folder: Path, text: str) -> Path:
    folder.mkdir(parents=True)
    page = folder / "page.html"
    page.write_text(text, encoding="utf-8")
    return page
