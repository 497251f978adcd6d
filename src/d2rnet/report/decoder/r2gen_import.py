"""import_r2gen: a checkpoint of R2Gen, or of D2R-Net's released code, becomes a folder that needs no pickle.

Reads: a PyTorch file, weights only. Writes: ``decoder.safetensors`` (the decoder under our names), ``config.yaml`` (its sizes,
heads and ids), ``backbone.safetensors`` (where R2Gen's ResNet is in the file; torchvision's names), ``run.json``
and ``model_card.md``.
"""

import logging
import re
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from d2rnet.errors import CheckpointError
from d2rnet.files.atomic import write_text
from d2rnet.files.parsing import ParseError, parse_yaml
from d2rnet.files.safetensors_files import save_safetensors
from d2rnet.files.torch_files import load_torch
from d2rnet.report.decoder.r2gen_decoder import R2GenDecoder, load_r2gen_decoder
from d2rnet.report.decoder.r2gen_keys import DECODER, IMAGE_NETWORK, PARALLEL, R2GenShape
from d2rnet.runs.cards import Card, write_card
from d2rnet.runs.provenance import write_run_record

log = logging.getLogger(__name__)
FORMAT = "d2rnet-r2gen-decoder-1"
WEIGHTS, BACKBONE, CONFIG, RECORD = "decoder.safetensors", "backbone.safetensors", "config.yaml", "run.json"
# R2Gen's image network is a Sequential of torchvision's ResNet without its last two parts; 2 and 3 have no weights.
BACKBONE_PARTS = {"0": "conv1", "1": "bn1", "4": "layer1", "5": "layer2", "6": "layer3", "7": "layer4"}
BACKBONE_KEY = re.compile(r"visual_extractor\.model\.(\d)\.(.+)")
R2GEN_CARD = Card(
    "model_card.md",
    Path(__file__).with_name("model_card.md.template"),
    versions=("python", "torch", "detectron2", "sal-detectron2", "lightning"),
    weights=(WEIGHTS,),
)


def import_r2gen(*, checkpoint: Path, out: Path, num_heads: int, memory_heads: int) -> None:
    """Write the folder of an imported decoder.

    Args:
        checkpoint: file of R2Gen's trainer (``state_dict`` beside other values) or a bare state dict.
        out: folder to write.
        num_heads: attention heads of the model, which no shape tells.
        memory_heads: attention heads of its relational memory.

    Raises:
        CheckpointError: no such file, pickled code in it, no R2Gen decoder in it, or heads that do not fit.
    """
    state = _state_dict(load_torch(checkpoint), checkpoint)
    own = {key: value for key, value in state.items() if key.startswith((DECODER, IMAGE_NETWORK))}
    if any(key.startswith(DECODER) for key in own):
        foreign = Counter(key.split(".")[0] for key in state.keys() - own.keys())
    else:
        own, foreign = state, Counter()
    try:
        decoder = load_r2gen_decoder(own, num_heads, memory_heads)
    except CheckpointError as error:
        raise CheckpointError(f"{checkpoint}: {error}") from error
    backbone = _backbone(own)
    if not backbone:
        foreign += Counter(key.split(".")[0] for key in own if key.startswith(IMAGE_NETWORK))
    save_safetensors(out / WEIGHTS, decoder.state_dict(), {"format": FORMAT})
    if backbone:
        save_safetensors(out / BACKBONE, backbone, {"format": FORMAT})
    config = {
        "format": FORMAT,
        "num_heads": num_heads,
        "memory_heads": memory_heads,
        "shape": asdict(decoder.shape),
        "special_id": 0,
    }
    write_text(out / CONFIG, yaml.safe_dump(config, sort_keys=False))
    counts = {
        "decoder_tensors": len(decoder.state_dict()),
        "backbone_tensors": len(backbone),
        "left_out_tensors": dict(sorted(foreign.items())),
    }
    settings = {"num_heads": num_heads, "memory_heads": memory_heads}
    write_run_record(out / RECORD, command="import-r2gen", settings=settings, inputs={"checkpoint": checkpoint}, counts=counts)
    write_card(R2GEN_CARD, out)
    _report(decoder, backbone, foreign, out)


def load_imported_decoder(folder: Path) -> R2GenDecoder:
    """Read a folder of :func:`import_r2gen`; the decoder is in evaluation mode, on the CPU.

    Raises:
        FileNotFoundError: a file of the folder is missing.
        CheckpointError: another format, or files that do not belong together.
    """
    for name in (WEIGHTS, CONFIG):
        if not (folder / name).is_file():
            raise FileNotFoundError(f"{folder / name}: no such file; the folder is made by 'd2rnet import-r2gen'.")
    remedy = "Import the checkpoint again."
    try:
        config: Any = parse_yaml((folder / CONFIG).read_text(encoding="utf-8"))
    except (ParseError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{folder / CONFIG}: not a YAML document ({error}). {remedy}") from error
    found = config.get("format") if isinstance(config, dict) else type(config).__name__
    if found != FORMAT:
        raise CheckpointError(f"{folder / CONFIG}: got format {found!r}; expected '{FORMAT}'. {remedy}")
    try:
        shape = R2GenShape(**config["shape"])
        decoder = R2GenDecoder(shape, num_heads=config["num_heads"], memory_heads=config["memory_heads"])
        decoder.load_state_dict(load_file(folder / WEIGHTS), strict=True)
    except (KeyError, TypeError, ValueError, ArithmeticError, RuntimeError, OSError, SafetensorError) as error:
        raise CheckpointError(f"{folder}: {WEIGHTS} and {CONFIG} do not belong together ({error}). {remedy}") from error
    return decoder.eval()


def _state_dict(content: dict[str, Any], source: Path) -> dict[str, Tensor]:
    """Take the tensors out of what a trainer saved, and the prefix of DataParallel off their names."""
    state = content["state_dict"] if isinstance(content.get("state_dict"), dict) else content
    others = sorted(str(key) for key, value in state.items() if not (isinstance(key, str) and isinstance(value, Tensor)))
    if others:
        raise CheckpointError(
            f"{source}: expected a state dict, or one under the key 'state_dict'; got other values under "
            f"{', '.join(others[:10])}. Save model.state_dict() and give that file."
        )
    return {key.removeprefix(PARALLEL): value for key, value in state.items()}


def _backbone(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return R2Gen's ResNet under torchvision's names; {} where the image network is another one, or there is none."""
    renamed = {}
    for key, value in state.items():
        if not key.startswith(IMAGE_NETWORK):
            continue
        found = BACKBONE_KEY.fullmatch(key)
        if found is None or found[1] not in BACKBONE_PARTS:
            return {}
        renamed[f"{BACKBONE_PARTS[found[1]]}.{found[2]}"] = value
    return renamed


def _report(decoder: R2GenDecoder, backbone: dict[str, Tensor], foreign: Counter[str], out: Path) -> None:
    """Log what was found and what was not taken over."""
    shape = decoder.shape
    log.info(
        "%s: decoder of %d layers, width %d, %d memory slots, %d words, patch features of width %d",
        out, shape.num_layers, shape.d_model, shape.memory_slots, shape.num_tokens - 1, shape.patch_width,
    )  # fmt: skip
    if backbone:
        log.info("%s: image network, for cxr.report.model.backbone_weights", out / BACKBONE)
    for name, count in sorted(foreign.items()):
        log.warning("%s: %d tensors left out; they belong to no part of the decoder", name, count)
