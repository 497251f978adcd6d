"""What the reading of a CT holds: the volume, sentences by structure, where each structure was looked at."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from d2rnet.reading.ct_view import VolumeView


@dataclass(frozen=True)
class CtSentence:
    """A sentence, and the structures that it speaks of, at least one."""

    text: str
    structures: tuple[str, ...]


@dataclass(frozen=True)
class CtContent:
    """What the models see and say.

    Attributes:
        name: of the file or folder, without the suffix of a volume.
        file: the last part of its path.
        volume: the part of the scan that the model saw.
        source: facts of the scan and its conversion, as JSON values.
        structures: all that the model looks at, in the order of its table.
        attention: (S, gz, gy, gx) float32 over the same part of the scan, >= 0: how much each structure's queries attend to
            each patch; patches of padded air have 0.
        sentences: in order; their texts make the findings.
        hypothesis: the findings as tokens of the report model's text protocol, as in test.jsonl.
        log_prob: of the hypothesis, natural logarithm.
        warnings: what a reader should know.
        origin: ``models`` (SHA-256 of their files), ``settings``, ``code``, ``device``.
        seconds: from file to findings.
    """

    name: str
    file: str
    volume: VolumeView
    source: dict[str, Any]
    structures: tuple[str, ...]
    attention: NDArray[np.float32] = field(repr=False, compare=False)
    sentences: tuple[CtSentence, ...]
    hypothesis: str
    log_prob: float
    warnings: tuple[str, ...]
    origin: dict[str, Any]
    seconds: float

    def by_structure(self) -> dict[str, tuple[CtSentence, ...]]:
        """Return each structure's sentences, in their order; one of several structures stands at each of them."""
        return {name: tuple(one for one in self.sentences if name in one.structures) for name in self.structures}
