"""Do queries look at their structure: attention inside true masks, for evaluation only.

Shapes: N volumes, S structures, P patches, R resamples of patients.
"""

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from d2rnet.ct.structure_model.diagnostics import attention_inside
from d2rnet.ct.structure_model.masks import Masks, UnfitMaskError
from d2rnet.evaluation.resampling import percentile_interval
from d2rnet.runs.progress import track

log = logging.getLogger(__name__)


def attention_scores(
    masks: Masks,
    volumes: Sequence[Mapping[str, Any]],
    attention: Mapping[str, NDArray[np.float16]],
    seen: NDArray[np.bool_],
    *,
    grid_zyx: tuple[int, int, int],
    counts: NDArray[np.float32],
) -> tuple[dict[str, dict[str, Any]], dict[str, Any]]:
    """Compare where queries look with where their structures are.

    Args:
        masks: of the scans.
        volumes: N lines of convert-ct's volumes.jsonl.
        attention: structure -> (N, P).
        seen: (N, P) patches that may be looked at.
        grid_zyx: patches along each axis.
        counts: (N, R) how often each volume was drawn.

    Returns:
        Structure -> its scores, of those that lie in a volume; and ``volumes`` that were compared, with ``left_out``, how
        many of the others for which reason.
    """
    found: dict[str, dict[int, dict[str, Any]]] = {name: {} for name in masks.structures}
    left_out: Counter[str] = Counter()
    for place, volume in enumerate(track(volumes, total=len(volumes), what="compare attention with masks", unit="volume")):
        try:
            shares = masks.shares(volume, grid_zyx)
        except UnfitMaskError as error:
            left_out[str(error)] += 1
            continue
        for name, share in shares.items():
            scores = attention_inside(attention[name][place].astype(np.float64), share.astype(np.float64), seen[place])
            if scores is not None:
                found[name][place] = scores
    for reason, number in left_out.most_common():
        log.warning("attention is not compared with masks in %d of %d volumes: %s", number, len(volumes), reason)
    compared = {"volumes": len(volumes) - left_out.total(), "left_out": dict(sorted(left_out.items()))}
    return {name: _joined(of_volume, counts) for name, of_volume in found.items() if of_volume}, compared


def _joined(of_volume: Mapping[int, Mapping[str, Any]], counts: NDArray[np.float32]) -> dict[str, Any]:
    """Return means over the volumes, and the ratio's interval over resamples of patients."""
    places = np.array(list(of_volume))
    inside = np.array([one["inside"] for one in of_volume.values()])
    expected = np.array([one["expected"] for one in of_volume.values()])
    drawn = (inside @ counts[places]) / np.maximum(expected @ counts[places], 1e-12)
    return {
        "attention_volumes": len(of_volume),
        "attention_inside": float(inside.mean()),
        "attention_expected": float(expected.mean()),
        "attention_ratio": float(inside.mean() / expected.mean()),
        "attention_ratio_interval": percentile_interval(drawn),
        "pointing_hit": float(np.mean([one["hit"] for one in of_volume.values()])),
    }
