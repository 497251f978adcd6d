"""Seeded splits by group: where a patient is known all of their images fall into one split, else each image is its own group.

The split depends on the seed and on the set of groups alone, not on the order of the input; adding a group moves few others.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence

from d2rnet.errors import DatasetError

THREE_WAY_FRACTIONS: Mapping[str, float] = {"train": 0.7, "val": 0.1, "test": 0.2}


def split_groups(groups: Iterable[str], fractions: Mapping[str, float], *, seed: int) -> dict[str, str]:
    """Assign each distinct group to a split.

    Groups are ordered by a hash of seed and name, and cut into consecutive parts. Each split gets at least one group if there
    are as many groups as splits.

    Args:
        groups: group names, such as subject ids; repeats are ignored.
        fractions: split name -> share of the groups; shares are positive and sum to 1.
        seed: seed of the order.

    Returns:
        Group -> split name, groups sorted by name.

    Raises:
        DatasetError: there are fewer groups than splits.
    """
    ordered = sorted(set(groups), key=lambda group: _order_key(group, seed))
    if len(ordered) < len(fractions):
        raise DatasetError(
            f"cannot split {len(ordered)} patient(s) or ungrouped image(s) into {', '.join(fractions)}: each needs at least "
            "one. Add data."
        )
    assigned: dict[str, str] = {}
    start = 0
    for name, size in zip(fractions, _sizes(len(ordered), list(fractions.values())), strict=True):
        assigned.update(dict.fromkeys(ordered[start : start + size], name))
        start += size
    return dict(sorted(assigned.items()))


def three_way_split(groups: Iterable[str], *, seed: int) -> dict[str, str]:
    """Assign groups to train (70 %), val (10 %) and test (20 %); see :func:`split_groups`."""
    return split_groups(groups, THREE_WAY_FRACTIONS, seed=seed)


def validation_split(groups: Iterable[str], *, val_fraction: float, seed: int) -> dict[str, str]:
    """Set a share of the training groups aside as ``val``; the rest stay ``train``; see :func:`split_groups`."""
    return split_groups(groups, {"train": 1.0 - val_fraction, "val": val_fraction}, seed=seed)


def _order_key(group: str, seed: int) -> bytes:
    return hashlib.sha256(f"{seed}:{group}".encode()).digest()


def _sizes(total: int, shares: Sequence[float]) -> list[int]:
    """Largest-remainder rounding with a floor of one; the sum is ``total``."""
    exact = [total * share / sum(shares) for share in shares]
    sizes = [max(1, int(value)) for value in exact]
    while sum(sizes) < total:
        sizes[max(range(len(sizes)), key=lambda i: (exact[i] - sizes[i], -i))] += 1
    while sum(sizes) > total:
        sizes[max((i for i in range(len(sizes)) if sizes[i] > 1), key=lambda i: (sizes[i] - exact[i], -i))] -= 1
    return sizes
