"""Scores of stage 1 as rows and sentences for people: what its structures observe, each beside what would come without it."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from d2rnet.figures.summary_lines import number, thousands

REQUIRED = (
    *("split", "section", "volumes", "patients"),
    *("structures", "zero_shot_auroc", "zero_shot_auroc_macro", "collapsed", "collapsed_texts"),
)
LEGEND = (
    "own text in 5: share of volumes that find what their own report says of the structure among the five nearest of the "
    "distinct texts, equally near ones in random order; chance: five drawn blindly; commonest: the five most frequent texts "
    "for every volume, without a look. attention (where there are true masks): the share of it inside the structure, over the "
    "structure's share of what may be looked at; 1 is an even look. greatest: share of volumes whose patch of greatest "
    "attention touches the structure."
)
Row = dict[str, str]


def structure_rows(metrics: Mapping[str, Any]) -> list[Row]:
    """Return a row a structure.

    Args:
        metrics: metrics.json of evaluate-structures.
    """
    rows = []
    for name, found in metrics["structures"].items():
        row = {
            "structure": name.replace("_", " "),
            "n": thousands(found["volumes"]),
            "own text in 5": _with_interval(found["image_to_text_recall_at_5"], found["image_to_text_recall_at_5_interval"]),
            "chance": _short(found["image_to_text_chance_at_5"]),
            "commonest": _short(found["image_to_text_commonest_at_5"]),
        }
        if any("attention_ratio" in other for other in metrics["structures"].values()):
            row["attention"] = _with_interval(found.get("attention_ratio"), found.get("attention_ratio_interval"))
            row["greatest"] = _short(found.get("pointing_hit"))
        rows.append(row)
    return rows


def structure_heading(metrics: Mapping[str, Any]) -> str:
    """Say what the rows were measured on."""
    return (
        f"Stage 1, what the structures observe: section {metrics['section']}, split {metrics['split']}, "
        f"{thousands(metrics['volumes'])} volumes of {thousands(metrics['patients'])} patients; n: volumes whose report "
        "speaks of the structure; brackets: 95 % interval over patients."
    )


def structure_lines(metrics: Mapping[str, Any]) -> Iterator[str]:
    """Yield what stands under the table: a collapse first, then the AUROC, then what the columns mean."""
    if metrics["collapsed"]:
        names = _named(metrics["collapsed"])
        yield f"COLLAPSED: {names}. Embeddings of different volumes are all but the same there: they tell volumes not apart."
    if metrics["collapsed_texts"]:
        names = _named(metrics["collapsed_texts"])
        yield f"COLLAPSED TEXTS: {names}. Embeddings of different texts are all but the same there: they tell texts not apart."
    labels = [one for one in metrics["zero_shot_auroc"].values() if one["auroc"] is not None]
    yield (
        f"zero-shot AUROC (from texts alone, no label of an image), mean of {len(labels)} abnormalities: "
        f"{number(metrics['zero_shot_auroc_macro'])}; chance 0.500."
    )
    yield LEGEND


def _named(structures: Iterable[str]) -> str:
    return ", ".join(name.replace("_", " ") for name in structures)


def _short(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _with_interval(value: float | None, ends: list[float] | None) -> str:
    return _short(value) + (f" [{ends[0]:.2f}, {ends[1]:.2f}]" if value is not None and ends else "")
