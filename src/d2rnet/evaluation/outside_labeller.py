"""A labeller of texts by somebody else's weights: each text is read once, and whatever goes wrong is a reason, not an end.

Both wings label reports by a BERT of others, where the user has its weights (chexbert.py, ct/evaluation/radbert.py). The other
scores do not depend on them, so a labeller that cannot be opened or fails is "not run" and its notes say why.

Shapes: N texts, C labels.
"""

import importlib
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from d2rnet.errors import CheckpointError, D2RNetError, ToolError

log = logging.getLogger(__name__)
NOT_RUN = "not run: "
BATCH_TEXTS = 32  # changes no label
MOST_LETTERS = 600  # of a reason
T = TypeVar("T")
Classify = Callable[[Sequence[str]], NDArray[Any]]  # n texts -> (n, C)


def attempt(name: str, run: Callable[[], T], notes: dict[str, str]) -> T | None:
    """Return what a labeller gives; None where it fails, with the reason under its name in ``notes``."""
    try:
        return run()
    except Exception as error:  # whatever a foreign file or package raises
        log.debug("%s failed", name, exc_info=True)
        reason = " ".join(str(error).split())[:MOST_LETTERS]
        plain = isinstance(error, D2RNetError | FileNotFoundError)
        notes[name] = f"{NOT_RUN}{reason if plain else f'{type(error).__name__}: {reason}'}"
        return None


class OutsideLabeller:
    """Reads texts, or says why it does not.

    Attributes:
        name: key of its note.
        notes: why it does not run; empty while it does.
    """

    def __init__(self, name: str, open_classifier: Callable[[], Classify]) -> None:
        """Open it; what ``open_classifier`` raises becomes the note."""
        self.name = name
        self.notes: dict[str, str] = {}
        self._known: dict[str, NDArray[Any]] = {}
        self._classify = attempt(name, open_classifier, self.notes)

    @property
    def runs(self) -> bool:
        """Whether it was opened and has not failed since."""
        return self._classify is not None

    def read(self, texts: Sequence[str]) -> NDArray[Any] | None:
        """Return (N, C), what it says of N texts; None where it does not run. A text read before is not read again."""
        if self._classify is None or attempt(self.name, lambda: self._read_new(texts), self.notes) is None:
            self._classify = None
            return None
        return np.stack([self._known[text] for text in texts])

    def _read_new(self, texts: Sequence[str]) -> bool:
        assert self._classify is not None
        new = sorted((text for text in dict.fromkeys(texts) if text not in self._known), key=len)  # little padding
        for start in range(0, len(new), BATCH_TEXTS):
            part = new[start : start + BATCH_TEXTS]
            self._known.update(zip(part, self._classify(part), strict=True))
        return True


def import_transformers() -> Any:
    """Return the package transformers, an optional extra.

    Raises:
        ToolError: it is not installed.
    """
    try:
        return importlib.import_module("transformers")
    except ImportError as error:
        raise ToolError(
            f"the package transformers does not import ({error}). Install it: pip install 'd2rnet[text-encoder]'."
        ) from error


def take_weights(network: Any, state: Mapping[str, Any], *, source: str, expected: str) -> None:
    """Put weights into a network; every key must fit, but numbers of positions, which older versions of transformers saved.

    Args:
        network: a torch module; takes them.
        state: name -> tensor of the file.
        source: setting and file, for the error.
        expected: what the network was made from, likewise.

    Raises:
        CheckpointError: a key is missing, left over, or of another shape.
    """
    try:
        network.load_state_dict({key: value for key, value in state.items() if not key.endswith("position_ids")})
    except (RuntimeError, AttributeError) as error:
        first = " ".join(str(error).split())[:300]
        raise CheckpointError(f"{source}: does not fit {expected}: {first}") from error
