"""Starting a Transformer from a checkpoint of R2Gen, or of D2R-Net's released code.

Taken are encoder, decoder, relational memory and memory-conditioned norms. Embedding and scores of words stay random: a state
dict does not tell which word an id means. So does the projection of patch features, which reads R2Gen's image network.
"""

import logging
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from d2rnet.errors import CheckpointError
from d2rnet.files.torch_files import load_torch
from d2rnet.report.decoder.memory_transformer import MemoryTransformer
from d2rnet.report.decoder.r2gen_decoder import load_r2gen_decoder
from d2rnet.report.decoder.r2gen_keys import DECODER, PARALLEL
from d2rnet.report.settings import DecoderSettings

log = logging.getLogger(__name__)
OF_WORDS = ("embedding.weight", "logits.weight", "logits.bias")
SIZES = ("d_model", "d_ff", "num_layers", "memory_slots")


def start_from_r2gen(transformer: MemoryTransformer, path: Path, settings: DecoderSettings) -> None:
    """Put R2Gen's weights into a Transformer, and log what was taken and what was left out.

    Args:
        transformer: made from ``settings``.
        path: file of R2Gen's trainer (``state_dict`` beside other values) or a bare state dict.
        settings: sizes; no shape tells the numbers of heads, which must be those that the file was trained with.

    Raises:
        CheckpointError: no such file, pickled code in it, no R2Gen decoder in it, or one of other sizes.
    """
    state = state_dict_of(load_torch(path), path)
    own = {key: value for key, value in state.items() if key.startswith(DECODER)} or state
    try:
        decoder = load_r2gen_decoder(own, settings.num_heads, settings.memory_heads)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error
    found = {name: getattr(decoder.shape, name) for name in SIZES}
    wrong = [
        f"{name} {getattr(settings, name)} instead of {size}"
        for name, size in found.items()
        if getattr(settings, name) != size
    ]
    if wrong:
        raise CheckpointError(
            f"{path}: does not fit {settings.place}: {', '.join(wrong)}. Set these keys to the file's sizes."
        )
    taken = {name: value for name, value in decoder.transformer.state_dict().items() if name not in OF_WORDS}
    transformer.load_state_dict({**transformer.state_dict(), **taken}, strict=True)
    log.info(
        "%s: took %d tensors; words and patch projection (%d tensors) begin at random", path, len(taken), len(OF_WORDS) + 2
    )
    for part, count in sorted(Counter(key.split(".")[0] for key in state.keys() - own.keys()).items()):
        log.warning("%s: %s: %d tensors left out; they belong to no part of the decoder", path, part, count)


def state_dict_of(content: Mapping[str, Any], source: Path) -> dict[str, Tensor]:
    """Take the tensors out of what a trainer saved, and the prefix of DataParallel off their names.

    Raises:
        CheckpointError: there are other values among them.
    """
    state = content["state_dict"] if isinstance(content.get("state_dict"), dict) else content
    others = sorted(str(key) for key, value in state.items() if not (isinstance(key, str) and isinstance(value, Tensor)))
    if others:
        raise CheckpointError(
            f"{source}: expected a state dict, or one under the key 'state_dict'; got other values under "
            f"{', '.join(others[:10])}. Save model.state_dict() and give that file."
        )
    return {key.removeprefix(PARALLEL): value for key, value in state.items()}
