"""What the page shows of one study: texts with sentences and marks, boxes, and what each sentence belongs to.

A generated sentence belongs to the pseudo boxes that are linked to it; apart from these, if it names a lesion at all, it has
those that the model attended to while writing it. A sentence of the reference belongs to the pseudo boxes of the classes that
it says are there or doubts. Either belongs to the true boxes of those classes. Sentences about a CT belong to structures.
"""

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from d2rnet.ct.structures.structures import structures_of
from d2rnet.ct.structures.table import StructureTable
from d2rnet.cxr.boxes.evidence import evidence_of, shown_boxes
from d2rnet.cxr.boxes.geometry import xyxy_to_xywh
from d2rnet.cxr.boxes.true_boxes import TrueBox
from d2rnet.errors import DatasetError
from d2rnet.findings.classes import CATEGORY_IDS
from d2rnet.gallery.located import split_spans
from d2rnet.gallery.marks import Verdict, class_verdicts, mark_of
from d2rnet.gallery.modality import RADIOGRAPHS, Modality
from d2rnet.gallery.pictures import Picture
from d2rnet.report.annotation_file import Entry

Sentence = Mapping[str, Any]
# start and end in the text, places of pseudo boxes, or of structures, places of pseudo boxes that were attended to alone
Span = tuple[int, int, list[int], list[int]]


@dataclass(frozen=True)
class Answer:
    """A generated report.

    Attributes:
        text: single-spaced.
        sentences: ``text``, ``boxes``, ``attended`` and ``linked`` (places in the entry's boxes) of each sentence; empty where
            that is not known.
        scores: metric -> value of this report alone.
    """

    text: str
    sentences: Sequence[Sentence] = ()
    scores: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Study:
    """One entry of annotation.json with its reference and the reports generated for it.

    Attributes:
        name: id of the entry.
        study_id: of the hospital.
        reference: single-spaced.
        answers: one per run that is shown.
        entry: None where only texts are known.
        true_boxes: (image, box) of each true lesion; None where the truth is not known.
        modality: of its images.
        structures: that its sentences are dealt out to; None: to none.
    """

    name: str
    study_id: str
    reference: str
    answers: tuple[Answer, ...]
    entry: Entry | None = None
    true_boxes: Sequence[tuple[int, TrueBox]] | None = None
    modality: Modality = RADIOGRAPHS
    structures: StructureTable | None = None

    @property
    def images(self) -> int:
        """How many images it is of: the radiographs of its entry, one volume, none where only texts are known."""
        if self.structures is not None:
            return 1
        return len(self.entry["image_path"]) if self.entry else 0

    @cached_property
    def verdicts(self) -> list[dict[str, Verdict]]:
        """Class verdicts of each answer."""
        return [class_verdicts(self.reference, answer.text, self.modality) for answer in self.answers]


def study_record(study: Study, pictures: Sequence[Picture], shown_score: float = 0.0) -> dict[str, Any]:
    """Return a study in the compact form in which the page holds it (docs/reference/formats.md).

    Args:
        study: texts and boxes.
        pictures: of its images; empty where only texts are known.
        shown_score: least score of a box that is shown whatever is written.

    Raises:
        DatasetError: a sentence lists a box that the entry does not have.
    """
    entry = study.entry
    verdicts = study.verdicts
    answers = [_answer_spans(study, answer) for answer in study.answers]
    shown = set() if entry is None or study.structures else _shown(entry, answers, shown_score)
    texts = [_text_record(study, study.reference, _reference_spans(study, shown), verdicts)]
    for answer, spans, own in zip(study.answers, answers, verdicts, strict=True):
        texts.append(_text_record(study, answer.text, spans, [own]))
    return {
        "i": study.name,
        "s": study.study_id,
        "p": [[one.uri, one.image_hw[1], one.image_hw[0], one.problem, one.name] for one in pictures],
        "b": [] if entry is None else _box_rows(entry, shown),
        "t": None if study.true_boxes is None else [_true_row(image, box) for image, box in study.true_boxes],
        "x": texts,
    }


def _shown(entry: Entry, answers: Sequence[Sequence[Span]], shown_score: float) -> set[int]:
    """Return the pseudo boxes that are shown from the start, see :func:`d2rnet.cxr.boxes.evidence.shown_boxes`."""
    evidence = [place for spans in answers for _, _, linked, attended in spans for place in (*linked, *attended)]
    return set(shown_boxes(entry["scores"], evidence, shown_score))


def _box_rows(entry: Entry, shown: Set[int]) -> list[list[Any]]:
    """Image, x, y, width, height, class and score of each pseudo box, and 1 if it is shown from the start, else 0."""
    images = entry.get("box_image", [0] * len(entry["boxes"]))
    parts = zip(images, entry["boxes"], entry["labels"], entry["scores"], strict=True)
    return [
        [image, *(round(value, 1) for value in box), CATEGORY_IDS[label] - 1, round(score, 3), int(place in shown)]
        for place, (image, box, label, score) in enumerate(parts)
    ]


def _true_row(image: int, box: TrueBox) -> list[Any]:
    category, corners = box
    return [image, *(round(value, 1) for value in xyxy_to_xywh([corners])[0].tolist()), CATEGORY_IDS[category] - 1]


def _reference_spans(study: Study, shown: Set[int]) -> list[Span]:
    """Sentences of a reference, each with those of the boxes ``shown`` that it names the class of, or with its structures."""
    text = study.reference
    if study.structures:
        return _structure_spans(text, study.structures)
    labels = [] if study.entry is None else study.entry["labels"]
    spans: list[Span] = []
    for start, end in split_spans(text):
        named = study.modality.named(text[start:end])
        spans.append((start, end, [place for place in sorted(shown) if labels[place] in named], []))
    return spans


def _structure_spans(text: str, table: StructureTable) -> list[Span]:
    """Sentences of any report, each with the places of its structures in the table."""
    places = {name: place for place, name in enumerate(table.structures)}
    spans: list[Span] = []
    start = 0
    for sentence in structures_of(text, table).sentences:
        end = start + len(sentence.text)
        spans.append((start, start + len(sentence.text.rstrip()), [places[name] for name in sentence.structures], []))
        start = end
    return spans


def _answer_spans(study: Study, answer: Answer) -> list[Span]:
    """Sentences of a generated report, each with its boxes (what lies between them has none), or with its structures."""
    if study.structures:
        return _structure_spans(answer.text, study.structures)
    spans: list[Span] = []
    position = 0
    for sentence in answer.sentences:
        linked, attended = _boxes_of(study, sentence)
        start = answer.text.find(sentence["text"], position)
        if start < 0:  # of another text; its boxes cannot be placed
            return _unlisted_spans(answer.text, 0, len(answer.text))
        spans += _unlisted_spans(answer.text, position, start)
        position = start + len(sentence["text"])
        spans.append((start, position, linked, attended))
    return spans + _unlisted_spans(answer.text, position, len(answer.text))


def _boxes_of(study: Study, sentence: Sentence) -> tuple[list[int], list[int]]:
    """Return the boxes linked to a generated sentence, and those that it merely attends to, if it names a lesion."""
    boxes = 0 if study.entry is None else len(study.entry["labels"])
    listed = sentence.get("boxes")
    linked = sentence.get("linked", [])
    if not isinstance(sentence.get("text"), str) or not isinstance(listed, list) or not isinstance(linked, list):
        raise DatasetError(
            f"report {study.name}: got a sentence with {', '.join(sentence)}; expected text and lists of boxes."
        )
    if any(type(place) is not int or not 0 <= place < boxes for place in [*listed, *linked]):
        raise DatasetError(
            f"report {study.name}: a sentence lists boxes {listed}, linked {linked}; its entry has {boxes}. Give the "
            "annotation.json that the reports were written for."
        )
    return evidence_of(sentence, study.entry) if study.entry else ([], [])


def _unlisted_spans(text: str, start: int, end: int) -> list[Span]:
    """Sentences of a stretch of text, without boxes."""
    return [(start + first, start + last, [], []) for first, last in split_spans(text[start:end])]


def _text_record(study: Study, text: str, spans: Sequence[Span], verdicts: Sequence[dict[str, Verdict]]) -> dict[str, Any]:
    """Text, sentences (start, end, boxes or structures, true boxes, boxes attended to alone), mentions.

    A mention has start, end, class, state, side and verdicts.
    """
    modality = study.modality
    states = modality.states(text)
    true_labels = [category for _, (category, _) in study.true_boxes or ()]
    sentences = []
    for start, end, places, attended in spans:
        named = modality.named(text[start:end]) if true_labels else set()
        truth = [place for place, label in enumerate(true_labels) if label in named]
        sentences.append([start, end, places, truth, attended])
    marks = [
        [
            found.start,
            found.end,
            modality.number(found.mention.category),
            found.mention.state,
            found.mention.side,
            [mark_of(found.mention, own, states) for own in verdicts],
        ]
        for found in modality.locate(text)
    ]
    return {"t": text, "s": sentences, "m": marks}
