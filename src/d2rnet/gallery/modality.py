"""What a gallery needs to know of a modality: its findings, how reports are read for them, how they are called.

Verdicts, marks, filters and the page are the same for all.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from d2rnet.ct.evaluation.metric_table import CT_METRICS
from d2rnet.evaluation.metric_names import METRICS, Metric, Shown
from d2rnet.figures.plots import CLASS_COLOURS, class_colours
from d2rnet.findings.ct_classes import CT_ABNORMALITIES
from d2rnet.findings.mention_context import State
from d2rnet.findings.mentions import named_sides, report_states
from d2rnet.gallery.located import Located, locate_ct_mentions, locate_mentions


@dataclass(frozen=True)
class Modality:
    """Images of one kind and the reports about them.

    Attributes:
        name: ``cxr`` or ``ct``; the page shows what is for this one.
        images: what an image is called, plural.
        finding: what its reports are compared by, such as "lesion".
        with_article: the same with "a" or "an".
        locate: finds the mentions in a text.
        colours: class -> ``#RRGGBB``, in the order of the class table.
        has_sides: whether reports tell sides that are compared.
        scores: metric -> name for people, of those that a page shows.
    """

    name: str
    images: str
    finding: str
    with_article: str
    locate: Callable[[str], tuple[Located, ...]]
    colours: Mapping[str, str]
    has_sides: bool
    scores: Mapping[str, str]

    def states(self, text: str) -> dict[str, State]:
        """Return one state for each class that a text mentions: present if said anywhere, else uncertain, else absent."""
        found = report_states([located.mention for located in self.locate(text)])
        return {name: found[name] for name in self.colours if name in found}

    def named(self, text: str) -> set[str]:
        """Return the classes that a text says are there or doubts."""
        return {name for name, state in self.states(text).items() if state is not State.ABSENT}

    def sides(self, text: str) -> dict[str, set[str]]:
        """Return the sides, left and right, of each class that a text names with a side."""
        return named_sides([located.mention for located in self.locate(text)])

    def number(self, name: str) -> int:
        """Return the place of a class in the class table, from 0."""
        return list(self.colours).index(name)

    def mask(self, names: Iterable[str]) -> int:
        """Return classes as bits; bit 0 is the first class."""
        return sum(1 << self.number(name) for name in set(names))


def _names(metrics: Iterable[Metric]) -> dict[str, str]:
    shown = {metric.key: metric.heading for metric in metrics if Shown.GALLERY not in metric.left_out_of}
    return {**shown, "log_prob": "log-probability"}


RADIOGRAPHS = Modality(
    "cxr",
    "radiographs",
    "lesion",
    "a lesion",
    locate_mentions,
    class_colours(),
    has_sides=True,
    scores=_names(METRICS.values()),
)
CT = Modality(
    "ct",
    "CT volumes",
    "abnormality",
    "an abnormality",
    locate_ct_mentions,
    dict(zip(CT_ABNORMALITIES, CLASS_COLOURS.values(), strict=False)),
    has_sides=False,
    scores=_names(CT_METRICS.values()),
)
