"""The reading of a CT: findings by structure, where each structure was looked at, and what made it.

No torch here. Nothing of a file's header but geometry and Hounsfield scale is kept; a file is named by its last part only.
"""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from d2rnet.ct.structures.table import structure_title
from d2rnet.files.atomic import write_text
from d2rnet.files.documents import write_json
from d2rnet.reading.content import NOTICE
from d2rnet.reading.ct_content import CtContent

FORMAT = "d2rnet-ct-reading-1"
ATTENTION_DIGITS = 5


class CtReading(CtContent):
    """What the models see and say, and the files that it is written to."""

    @property
    def findings(self) -> str:
        """The findings as a person would write them."""
        return " ".join(sentence.text for sentence in self.sentences)

    def to_json(self) -> dict[str, Any]:
        """Return the document of ``<name>.json``; docs/reference/formats.md describes it."""
        structures = {
            name: {
                "text": " ".join(sentence.text for sentence in sentences),
                "attention": np.round(own.ravel().astype(float), ATTENTION_DIGITS).tolist(),
            }
            for (name, sentences), own in zip(self.by_structure().items(), self.attention, strict=True)
        }
        return {
            "format": FORMAT,
            "notice": NOTICE,
            "name": self.name,
            "findings": self.findings,
            "hypothesis": self.hypothesis,
            "log_prob": self.log_prob,
            "volume": {"file": self.file, **self.source},
            "grid_zyx": list(self.attention.shape[1:]),
            "structures": structures,
            "sentences": [{"text": sentence.text, "structures": list(sentence.structures)} for sentence in self.sentences],
            "warnings": list(self.warnings),
            **self.origin,
            "seconds": self.seconds,
            "finished_utc": datetime.now(UTC).isoformat(timespec="seconds"),
        }

    def to_text(self) -> str:
        """Return what a terminal shows: size, warnings, and the findings of each structure."""
        shape = " x ".join(map(str, self.source["source_shape_zyx"]))
        spacing = " x ".join(f"{side:.2f}" for side in self.source["source_spacing_mm"])
        lines = [self.name, f"  {self.file}: {shape} voxels of {spacing} mm (z, y, x), {self.source['file_format']}"]
        lines += [f"  Warning: {warning}" for warning in self.warnings]
        lines += ["  Findings:"]
        silent = []
        for name, sentences in self.by_structure().items():
            if sentences:
                lines += [f"    {structure_title(name)}", *(f"      {sentence.text}" for sentence in sentences)]
            else:
                silent.append(name.replace("_", " "))
        lines += [f"  Not mentioned: {', '.join(silent)}"] if silent else []
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        """Return what a notebook shows of it: the page, at most 6 MB."""
        from d2rnet.reading.ct_page import page_text
        from d2rnet.reading.page import notebook_frame

        return notebook_frame(page_text(self))

    def save(self, folder: str | Path) -> dict[str, Path]:
        """Write ``<name>.json`` and ``<name>.html`` (one self-contained page).

        Args:
            folder: made if needed; a name with "/" leads to a folder below it.

        Returns:
            ``json`` and ``html`` -> file.

        Raises:
            OSError: a file cannot be written; no half file remains.
        """
        from d2rnet.reading.ct_page import page_text  # Pillow and the gallery take time to load

        files = {kind: Path(folder) / f"{self.name}.{kind}" for kind in ("json", "html")}
        write_text(files["html"], page_text(self))
        write_json(files["json"], self.to_json())
        return files
