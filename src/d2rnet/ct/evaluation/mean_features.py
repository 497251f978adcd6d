"""What stage 1 saw of a volume as one vector: the mean of its patches, which extract-ct-features stores.

Shapes: N volumes, D width of the patches.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from d2rnet.ct.report_model.features import feature_path, load_facts
from d2rnet.errors import DatasetError
from d2rnet.report.annotation_file import Entry
from d2rnet.runs.progress import track

MEAN = "mean"


def mean_features(folder: Path, entries: Sequence[Entry]) -> NDArray[np.float32]:
    """Read the mean patch of each volume; nothing else of its file is read.

    Args:
        folder: of extract-ct-features.
        entries: N entries of ct_annotation.json.

    Returns:
        (N, D) float32.

    Raises:
        FileNotFoundError: a volume has no features.
        DatasetError: a file is damaged, of another extraction, or its mean is not D finite numbers.
    """
    facts = load_facts(folder)
    found = np.empty((len(entries), facts.width), dtype=np.float32)
    for row, entry in enumerate(track(entries, total=len(entries), what="mean features", unit="volume")):
        path = feature_path(folder, facts.key, entry["volume_path"])
        if not path.is_file():
            raise FileNotFoundError(f"{path}: no features of volume {entry['id']}. Run 'd2rnet extract-ct-features' again.")
        vector, key = _read(path)
        if key != facts.key or vector.shape != (facts.width,) or not np.isfinite(vector).all():
            raise DatasetError(
                f"{path}: volume {entry['id']}: got a mean of shape {vector.shape} of extraction {key}; expected "
                f"{facts.width} finite numbers of extraction {facts.key}. Run 'd2rnet extract-ct-features' again."
            )
        found[row] = vector
    return found


def _read(path: Path) -> tuple[NDArray[np.float32], str]:
    """Return the mean and the key of the extraction."""
    try:
        with safe_open(path, framework="np") as content:
            return content.get_tensor(MEAN).astype(np.float32), (content.metadata() or {}).get("key", "not recorded")
    except (SafetensorError, OSError, ValueError) as error:
        raise DatasetError(
            f"{path}: not a readable file of features ({error}). Run 'd2rnet extract-ct-features-shard' again."
        ) from error
