"""Write the page: index.html with everything that filters and sorts need, and parts that are loaded when looked at.

A page opened from a file may not fetch, so parts are scripts, each of a few studies with their pictures. Their names carry the
build, so that a page never meets the parts of another one; an interrupted run leaves the old page whole.
"""

import base64
import hashlib
import html
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from d2rnet.data.categories import CATEGORY_IDS, CATEGORY_NAMES
from d2rnet.evaluation.mentions import named_classes
from d2rnet.gallery.marks import ERRORS
from d2rnet.gallery.studies import Study
from d2rnet.io import write_text
from d2rnet.plots import class_colours

ASSETS = Path(__file__).parent / "assets"
SCRIPTS = ("data.js", "parts.js", "filters.js", "list.js", "boxes.js", "texts.js", "main.js")
PARTS = "parts"
PART_BYTES = 400_000  # a study alone in the view costs the load of its part; 5,000 studies make about 500 files
SCORE_DIGITS = 4


class PageWriter:
    """Writes parts as studies come in, then the page."""

    def __init__(self, folder: Path, *, build: str, systems: int, max_bytes: int) -> None:
        """Start a page.

        Args:
            folder: of index.html; parts lie in a folder beside it.
            build: hexadecimal name of this build.
            systems: generated reports a study.
            max_bytes: of all parts together.
        """
        self._folder, self._build, self._max_bytes = folder, build, max_bytes
        self._waiting: list[str] = []
        self._waiting_bytes = 0
        self._starts: list[int] = []
        self._bytes = 0
        self._index: dict[str, Any] = {"id": [], "study": [], "named": [], "scores": {}}
        self._index["errors"] = {error: [[] for _ in range(systems)] for error in ERRORS}

    @property
    def count(self) -> int:
        """Number of studies taken so far."""
        return len(self._index["id"])

    @property
    def part_bytes(self) -> int:
        """Bytes of all parts."""
        return self._bytes

    def add(self, study: Study, record: Mapping[str, Any]) -> bool:
        """Take a study; return False, and leave it out, where it would make the parts larger than allowed.

        Args:
            study: what the index needs.
            record: of :func:`d2rnet.gallery.studies.study_record`.
        """
        text = script_json(record)
        if self._bytes + len(text) > self._max_bytes:
            return False
        self._bytes += len(text)
        if not self._waiting:
            self._starts.append(self.count)
        self._waiting.append(text)
        self._waiting_bytes += len(text)
        self._add_to_index(study)
        if self._waiting_bytes >= PART_BYTES:
            self._write_part()
        return True

    def _add_to_index(self, study: Study) -> None:
        row = self.count
        self._index["id"].append(study.name)
        self._index["study"].append(study.study_id)
        texts = (study.reference, *(answer.text for answer in study.answers))
        named = set().union(*map(named_classes, texts), (category for _, (category, _) in study.true_boxes or ()))
        named.update(study.entry["labels"] if study.entry else ())
        self._index["named"].append(class_mask(named))
        for error in ERRORS:
            for masks, verdicts in zip(self._index["errors"][error], study.verdicts, strict=True):
                masks.append(class_mask({name for name, verdict in verdicts.items() if verdict is error}))
        for system, answer in enumerate(study.answers):
            for metric, value in answer.scores.items():
                columns = self._index["scores"].setdefault(metric, [[] for _ in study.answers])
                columns[system] += [None] * (row - len(columns[system])) + [round(float(value), SCORE_DIGITS)]

    def _write_part(self) -> None:
        number = len(self._starts) - 1
        body = ",\n".join(self._waiting)
        write_text(self._folder / PARTS / part_name(self._build, number), f"d2rnetPart({number}, [\n{body}\n]);\n")
        self._waiting, self._waiting_bytes = [], 0

    def finish(self, meta: Mapping[str, Any]) -> None:
        """Write what is left and index.html; remove the parts of earlier builds.

        Args:
            meta: title, systems, protocol, notes and so on; see docs/reference/formats.md.
        """
        if self._waiting:
            self._write_part()
        colours = class_colours()
        data = {
            "meta": {**meta, "build": self._build, "classes": [[name, colours[name]] for name in CATEGORY_NAMES]},
            "index": {**self._index, "parts": self._starts},
        }
        write_text(self._folder / "index.html", page_text(str(meta["title"]), data))
        current = {part_name(self._build, number) for number in range(len(self._starts))}
        for path in (self._folder / PARTS).glob("*.js"):
            if re.fullmatch(r"[0-9a-f]{12}-\d{5}\.js", path.name) and path.name not in current:
                path.unlink()


def part_name(build: str, number: int) -> str:
    """Return the file name of a part."""
    return f"{build}-{number:05d}.js"


def class_mask(names: set[str]) -> int:
    """Return class names as bits; bit 0 is the first class."""
    return sum(1 << (CATEGORY_IDS[name] - 1) for name in names)


def script_json(value: Any) -> str:
    """Return compact JSON in ASCII that is safe inside a script element and as JavaScript, whatever its strings hold."""
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def page_text(title: str, data: Any) -> str:
    """Return index.html: style, script and data inside, and a policy that lets nothing but parts and their pictures load.

    Args:
        title: of the page.
        data: what :mod:`assets/data.js` reads.
    """
    style = (ASSETS / "gallery.css").read_text(encoding="utf-8")
    script = "\n".join((ASSETS / name).read_text(encoding="utf-8") for name in SCRIPTS)
    policy = (
        f"default-src 'none'; base-uri 'none'; form-action 'none'; img-src data:; style-src '{_digest(style)}'; "
        f"script-src 'self' file: '{_digest(script)}'"
    )
    values = {"title": html.escape(title), "policy": policy, "style": style, "script": script, "data": script_json(data)}
    template = (ASSETS / "page.html").read_text(encoding="utf-8")
    return re.sub(r"\{\{(\w+)\}\}", lambda found: values[found[1]], template)


def _digest(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
