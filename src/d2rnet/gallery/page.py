"""Write the page: one file that holds everything; studies are inert text in it, decoded when they are looked at.

Studies are written as they come, so that neither their number nor their size decides the memory that writing takes. What
filters and sorts need follows them, the script last.
"""

import base64
import hashlib
import html
import json
import re
from collections.abc import Iterator, Mapping, Set
from contextlib import contextmanager
from itertools import compress
from pathlib import Path
from typing import Any, TextIO

from d2rnet.files.atomic import atomic_path
from d2rnet.gallery.marks import ERRORS, Verdict
from d2rnet.gallery.modality import RADIOGRAPHS, Modality
from d2rnet.gallery.studies import Study

ASSETS = Path(__file__).parent / "assets"
SCRIPTS = ("data.js", "filters.js", "list.js", "boxes.js", "texts.js", "print.js", "main.js")
SCORE_DIGITS = 4
NOTICE = "<strong>Do not publish.</strong> Report text and images may be protected health information."
SYNTHETIC = "<strong>Synthetic images, drawn by code:</strong> nothing here is about a patient."


class PageWriter:
    """Writes studies as they come in, then the rest of the page."""

    def __init__(
        self,
        stream: TextIO,
        *,
        title: str,
        systems: int,
        max_bytes: int,
        modality: Modality = RADIOGRAPHS,
        synthetic: bool = False,
    ) -> None:
        """Begin a page.

        Args:
            stream: of the file, UTF-8.
            title: of the page.
            systems: generated reports per study.
            max_bytes: of all studies together.
            modality: of all studies.
            synthetic: the images are those of the demo cohort.
        """
        self._stream = stream
        self._modality = modality
        self._errors = [error for error in ERRORS if modality.has_sides or error is not Verdict.WRONG_SIDE]
        self._max_bytes = max_bytes
        self._bytes = 0
        self._index: dict[str, Any] = {"id": [], "study": [], "images": [], "named": [], "scores": {}}
        self._index["errors"] = {error: [[] for _ in range(systems)] for error in self._errors}
        style = _asset("gallery.css")
        script = "\n".join(map(_asset, SCRIPTS))
        policy = (
            f"default-src 'none'; base-uri 'none'; form-action 'none'; img-src data:; style-src '{_digest(style)}'; "
            f"script-src '{_digest(script)}'"
        )
        head, self._tail = _asset("page.html").split("{{studies}}")
        self._script = script
        words = {"modality": modality.name, "finding": modality.finding, "Finding": modality.finding.capitalize()}
        self._words = {**words, "a_finding": modality.with_article, "notice": SYNTHETIC if synthetic else NOTICE}
        stream.write(_fill(head, {"title": html.escape(title), "policy": policy, "style": style, **self._words}))

    @property
    def count(self) -> int:
        """Number of studies taken so far."""
        return len(self._index["id"])

    @property
    def studies(self) -> int:
        """Number of studies that those taken so far are of: each of their images may have been one."""
        return len(set(map(_study_of, self._index["study"], self._index["id"])))

    @property
    def study_bytes(self) -> int:
        """Bytes of all studies."""
        return self._bytes

    def add(self, study: Study, record: Mapping[str, Any]) -> bool:
        """Take a study; return False, and leave it out, where it would make the page larger than allowed.

        Args:
            study: what the index needs.
            record: of :func:`d2rnet.gallery.studies.study_record`.
        """
        text = script_json(record)
        plain = _plain(study)
        if self._bytes + len(text) + len(plain) > self._max_bytes:
            return False
        self._bytes += len(text) + len(plain)
        self._stream.write(f'<script type="application/json" class="study">{text}</script>\n{plain}')
        labels = study.entry["labels"] if study.entry else ()
        self._add_to_index(study, set(compress(labels, (row[-1] for row in record["b"]))))  # of boxes shown from the start
        return True

    def _add_to_index(self, study: Study, box_labels: Set[str]) -> None:
        row = self.count
        self._index["id"].append(study.name)
        self._index["study"].append(study.study_id)
        self._index["images"].append(study.images)
        texts = (study.reference, *(answer.text for answer in study.answers))
        named = set().union(*map(self._modality.named, texts), (category for _, (category, _) in study.true_boxes or ()))
        named.update(box_labels)
        self._index["named"].append(self._modality.mask(named))
        for error in self._errors:
            for masks, verdicts in zip(self._index["errors"][error], study.verdicts, strict=True):
                masks.append(self._modality.mask(name for name, verdict in verdicts.items() if verdict is error))
        for system, answer in enumerate(study.answers):
            for metric, value in answer.scores.items():
                columns = self._index["scores"].setdefault(metric, [[] for _ in study.answers])
                columns[system] += [None] * (row - len(columns[system])) + [round(float(value), SCORE_DIGITS)]

    def finish(self, meta: Mapping[str, Any]) -> None:
        """Write what is left of the page.

        Args:
            meta: title, systems, protocol, notes and so on; see docs/reference/formats.md.
        """
        words = {"finding": self._modality.finding, "a_finding": self._modality.with_article, "images": self._modality.images}
        data = {
            "meta": {**meta, **words, "errors": self._errors, "classes": list(map(list, self._modality.colours.items()))},
            "index": self._index,
        }
        self._stream.write(_fill(self._tail, {"data": script_json(data), "script": self._script, **self._words}))


@contextmanager
def open_page(target: Path, **options: Any) -> Iterator[PageWriter]:
    """Yield the writer of a page that takes the place of ``target`` when all has gone well; arguments as of the writer."""
    with atomic_path(target) as temporary, temporary.open("w", encoding="utf-8", newline="\n") as stream:
        yield PageWriter(stream, **options)


def script_json(value: Any) -> str:
    """Return compact JSON in ASCII that is safe inside a script element, whatever its strings hold."""
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _study_of(study_id: str, name: str) -> str:
    return study_id or name


def _plain(study: Study) -> str:
    """Return the texts of a study as they are read without JavaScript."""
    names = ["Generated"] if len(study.answers) == 1 else [f"Run {letter}" for letter in "AB"]
    texts = zip(["Reference", *names], [study.reference, *(answer.text for answer in study.answers)], strict=True)
    parts = "".join(f"<h3>{name}</h3><p>{_readable(text) or 'empty report'}</p>" for name, text in texts)
    title = f"Study {study.study_id}" if study.study_id else study.name
    return f"<noscript><article><h2>{_readable(title)}</h2>{parts}</article></noscript>\n"


def _readable(text: str) -> str:
    return html.escape(text.replace("\0", "\N{REPLACEMENT CHARACTER}"))


def _asset(name: str) -> str:
    return (ASSETS / name).read_text(encoding="utf-8")


def _fill(template: str, values: Mapping[str, str]) -> str:
    return re.sub(r"\{\{(\w+)\}\}", lambda found: values[found[1]], template)


def _digest(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
