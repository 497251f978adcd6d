"""What stage 1 saw of a volume as one vector: its observations side by side, or the mean of its patches.

Shapes: N volumes, S structures, K observations of each, W width of stage 1, D of the vector.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from d2rnet.ct.evaluation.settings import VectorKind
from d2rnet.ct.report_model.features import feature_path, load_facts
from d2rnet.errors import DatasetError
from d2rnet.report.annotation_file import Entry
from d2rnet.runs.progress import track


def volume_vectors(folder: Path, entries: Sequence[Entry], kind: VectorKind) -> NDArray[np.float32]:
    """Read the vector of each volume; nothing else of its file is read.

    Args:
        folder: of extract-ct-features.
        entries: N entries of ct_annotation.json.
        kind: observations, D = S K W; or mean, D = W.

    Returns:
        (N, D) float32.

    Raises:
        FileNotFoundError: a volume has no features.
        DatasetError: a file is damaged, of another extraction, or holds other numbers than finite ones of that shape.
    """
    facts = load_facts(folder)
    width = (facts.width,)
    shape = (len(facts.structures), facts.queries_per_structure, *width) if kind == "observations" else width
    found = np.empty((len(entries), int(np.prod(shape))), dtype=np.float32)
    for row, entry in enumerate(track(entries, total=len(entries), what="features", unit="volume")):
        path = feature_path(folder, facts.key, entry["volume_path"])
        if not path.is_file():
            raise FileNotFoundError(f"{path}: no features of volume {entry['id']}. Run 'd2rnet extract-ct-features' again.")
        values, key = _read(path, kind)
        if key != facts.key or values.shape != shape or not np.isfinite(values).all():
            raise DatasetError(
                f"{path}: volume {entry['id']}: got '{kind}' of shape {values.shape} of extraction {key}; expected finite "
                f"numbers of shape {shape} of extraction {facts.key}. Run 'd2rnet extract-ct-features' again."
            )
        found[row] = values.ravel()
    return found


def _read(path: Path, kind: VectorKind) -> tuple[NDArray[np.float32], str]:
    """Return the stored tensor and the key of the extraction."""
    try:
        with safe_open(path, framework="np") as content:
            return content.get_tensor(kind).astype(np.float32), (content.metadata() or {}).get("key", "not recorded")
    except (SafetensorError, OSError, ValueError) as error:
        raise DatasetError(
            f"{path}: not a readable file of features ({error}). Run 'd2rnet extract-ct-features-shard' again."
        ) from error
