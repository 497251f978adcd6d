"""Pretrained weights of an encoder, strictly: every tensor of the network is found in the file, or the file is refused.

What of the file is not used must be known by name, with a reason; anything else means that the file is of another network.
"""

import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from d2rnet.errors import CheckpointError
from d2rnet.files.torch_files import unsound_tensors

log = logging.getLogger(__name__)
_SHOWN = 5


@dataclass(frozen=True)
class WeightReport:
    """What a file of weights gave to a network.

    Attributes:
        path: the file.
        taken: names of the network, all of them, and the name in the file of each.
        left_out: names of the file that were not used, by reason.
    """

    path: Path
    taken: Mapping[str, str]
    left_out: Mapping[str, tuple[str, ...]]

    def lines(self) -> list[str]:
        """Return the report as text, a line for what was taken and one for each reason."""
        first = f"{self.path}: took {len(self.taken)} tensors, all that the encoder has"
        rest = [
            f"{self.path}: left out {len(names)} tensors, {reason}: {_some(names)}"
            for reason, names in sorted(self.left_out.items())
        ]
        return [first, *rest]


def match_weights(
    network: Mapping[str, Tensor],
    state: Mapping[str, Tensor],
    names: Mapping[str, str],
    unused: Sequence[tuple[str, str]],
    path: Path,
) -> WeightReport:
    """Find the tensors of a network in a file, by name and shape alone (tensors may be on the meta device).

    Args:
        network: its state dict.
        state: that of the file.
        names: name in the file for each name of the network.
        unused: patterns of names in the file that are known not to be needed, each with the reason; the first that fits.
        path: of the file, for messages.

    Raises:
        CheckpointError: a tensor is missing, has another shape, or the file holds what is not known.
    """
    absent = sorted(names[own] for own in network if names[own] not in state)
    if absent:
        raise CheckpointError(
            f"{path}: lacks {len(absent)} of the encoder's {len(network)} tensors: {_some(absent)}. Give weights of the "
            "encoder that the settings describe (kind, layers, width)."
        )
    wrong = [
        f"{names[own]} {tuple(state[names[own]].shape)} instead of {tuple(tensor.shape)}"
        for own, tensor in network.items()
        if state[names[own]].shape != tensor.shape
    ]
    if wrong:
        raise CheckpointError(
            f"{path}: {len(wrong)} tensors have another shape than the encoder that the settings describe: {_some(wrong)}."
        )
    used = set(names.values())
    left_out: dict[str, list[str]] = {}
    unknown = []
    for name in sorted(state.keys() - used):
        reason = next((reason for pattern, reason in unused if re.match(pattern, name)), None)
        if reason is None:
            unknown.append(name)
        else:
            left_out.setdefault(reason, []).append(name)
    if unknown:
        raise CheckpointError(
            f"{path}: {len(unknown)} tensors belong to no part of the encoder that the settings describe: {_some(unknown)}. "
            "The file is of another network, or of more layers."
        )
    taken = {own: names[own] for own in network}
    return WeightReport(path=path, taken=taken, left_out={reason: tuple(found) for reason, found in left_out.items()})


def load_weights(
    network: nn.Module,
    state: Mapping[str, Tensor],
    names: Mapping[str, str],
    unused: Sequence[tuple[str, str]],
    path: Path,
) -> WeightReport:
    """Put a file's tensors into a network, and log what was taken and what was left out.

    Raises:
        CheckpointError: as ``match_weights``, or a tensor is not finite or of whole numbers.
    """
    own = network.state_dict()
    report = match_weights(own, state, names, unused, path)
    chosen = {name: state[source] for name, source in report.taken.items()}
    unsound = [names[name] for name in unsound_tensors(chosen, own)]
    if unsound:
        raise CheckpointError(
            f"{path}: {len(unsound)} tensors hold what no training leaves, not finite or whole numbers: {_some(unsound)}."
        )
    network.load_state_dict(chosen, strict=True)
    for line in report.lines():
        log.info("%s", line)
    return report


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
