"""Features of a volume: what stage 2 needs of what stage 1 saw, one safetensors file each, mapped by readers.

A file holds the tensors of :class:`d2rnet.ct.report_model.selection.Features` and, for pages that show where a structure
looks, its attention over all patches in 256 steps: ``maps`` (S, P) uint8 times ``map_scale`` (S,). Size for S = 10 structures,
k = 9, D = 768, P = 4,096, float16: 199 kB (10 GB for the 50,188 volumes of CT-RATE), 6.4 MB with all patches.

The metadata of a file names the key of the extraction and the volume that it was made from.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from d2rnet.ct.report_model.selection import NONE, Features, random_patches, top_patches
from d2rnet.ct.report_model.settings import CtFeatureSettings
from d2rnet.ct.structure_model.observer import Observation
from d2rnet.errors import DatasetError
from d2rnet.files.documents import read_json
from d2rnet.files.safetensors_files import save_safetensors

FORMAT = "d2rnet-ct-features-1"
INDEX = "features.json"
FEATURES = "features"
SUFFIX = ".safetensors"
MAP_STEPS = 255
DTYPES = {"float16": torch.float16, "float32": torch.float32}
_REMEDY = "Run 'd2rnet extract-ct-features-shard' again."


@dataclass(frozen=True)
class FeatureFacts:
    """What is the same for the features of all volumes of an extraction.

    Attributes:
        key: names weights, configuration and grid of stage 1, and what is kept.
        structures: names, in the order of the rows.
        grid_zyx: patches along each axis.
        queries_per_structure: K.
        width: D.
        patches: whose vectors are kept: top, random or all.
        most_per_structure: k.
    """

    key: str
    structures: tuple[str, ...]
    grid_zyx: tuple[int, int, int]
    queries_per_structure: int
    width: int
    patches: str
    most_per_structure: int

    def to_json(self) -> dict[str, Any]:
        """Return the facts as JSON values."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in vars(self).items()}

    @classmethod
    def of(cls, content: Any) -> "FeatureFacts":
        """Read :meth:`to_json`.

        Raises:
            ValueError: something else.
        """
        try:
            names = tuple(content["structures"])
            z, y, x = content["grid_zyx"]
            numbers = [content[name] for name in ("queries_per_structure", "width", "most_per_structure")]
            texts = [*names, content["key"], content["patches"]]
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"no facts of features ({error})") from error
        if not all(type(number) is int and number > 0 for number in (z, y, x, *numbers)):
            raise ValueError("sizes of features are no whole numbers above 0")
        if not names or not all(isinstance(text, str) for text in texts):
            raise ValueError("names of structures are no texts")
        queries, width, most = numbers
        return cls(content["key"], names, (z, y, x), queries, width, content["patches"], most)


def features_of(observation: Observation, settings: CtFeatureSettings, *, name: str) -> tuple[Features, Tensor]:
    """Return what is kept of the observation of one volume, and the attention of each structure over all patches.

    Args:
        observation: of one volume.
        settings: section ``ct.report.features``.
        name: of the volume.

    Returns:
        Features on the CPU, and (S, P) attention.

    Raises:
        DatasetError: no patch may be seen, or a number is not finite or too large for the type; names no file.
    """
    patches = observation.patches[0].float().cpu()  # (P, D)
    attention = observation.attention[0].float().cpu()  # (S, P)
    tokens = observation.tokens[0].float().cpu()  # (S, K, D)
    mask = observation.patch_mask[0].cpu()  # (P,)
    if not mask.any():
        raise DatasetError("got nothing but the lowest value of the window; expected a chest")
    dtype = DTYPES[settings.dtype]
    for what, values in (("patches", patches[mask]), ("observations", tokens), ("attention", attention)):
        if not values.to(dtype).isfinite().all():
            raise DatasetError(
                f"got {what} of stage 1 up to {float(values.abs().max()):.3g}; expected numbers that {settings.dtype} can "
                "hold (ct.report.features.dtype)"
            )
    most = settings.most_per_structure
    top = top_patches(attention, mask, most)
    chosen = top if settings.patches == "top" else random_patches(mask, len(tokens), most, name=name, seed=settings.seed)
    is_there = chosen != NONE
    keeps_all = settings.patches == "all"
    features = Features(
        observations=tokens.to(dtype),
        top=top,
        top_attention=attention.gather(1, top.clamp(min=0)) * (top != NONE),
        mean=patches[mask].mean(dim=0).to(dtype),
        patch_mask=mask,
        chosen=chosen,
        vectors=None if keeps_all else (patches[chosen.clamp(min=0)] * is_there[..., None]).to(dtype),  # (S, k, D)
        patches=patches.masked_fill(~mask[:, None], 0).to(dtype) if keeps_all else None,
    )
    return features, attention


def write_features(path: Path, features: Features, attention: Tensor, *, metadata: dict[str, str]) -> None:
    """Write the features of a volume atomically.

    Args:
        path: file to write.
        features: of :func:`features_of`.
        attention: (S, P), likewise.
        metadata: key of the extraction, and what the volume is.

    Raises:
        OSError: it cannot be written (disk full).
    """
    scale = attention.amax(dim=1)  # (S,)
    steps = attention / scale.clamp(min=torch.finfo(scale.dtype).tiny)[:, None] * MAP_STEPS
    tensors = {
        "observations": features.observations,
        "top": features.top.int(),
        "top_attention": features.top_attention,
        "mean": features.mean,
        "mask": torch.from_numpy(np.packbits(features.patch_mask.numpy())),
        "maps": steps.round().to(torch.uint8),
        "map_scale": scale,
    }
    if features.chosen is not features.top:
        tensors["chosen"] = features.chosen.int()
    if features.vectors is not None:
        tensors["vectors"] = features.vectors
    if features.patches is not None:
        tensors["patches"] = features.patches
    save_safetensors(path, tensors, {"format": FORMAT, **metadata})


def metadata_of(path: Path) -> dict[str, str] | None:
    """Return the metadata of a file of features; None where there is no whole one."""
    try:
        with safe_open(path, framework="pt") as content:
            return dict(content.metadata() or {})
    except (SafetensorError, OSError, ValueError):
        return None


def read_features(path: Path, facts: FeatureFacts) -> Features:
    """Read the features of a volume, without its maps.

    Raises:
        FileNotFoundError: there is no such file.
        DatasetError: damaged, or of another extraction.
    """
    tensors, metadata = _tensors(path, without=("maps", "map_scale"))
    if metadata.get("format") != FORMAT or metadata.get("key") != facts.key:
        raise DatasetError(
            f"{path}: of extraction {metadata.get('key')!r}; expected {facts.key!r}, which {INDEX} names. {_REMEDY}"
        )
    patches = int(np.prod(facts.grid_zyx))
    try:
        mask = np.unpackbits(tensors["mask"].numpy(), count=patches).astype(bool)
        top = tensors["top"].long()
        features = Features(
            observations=tensors["observations"],
            top=top,
            top_attention=tensors["top_attention"],
            mean=tensors["mean"],
            patch_mask=torch.from_numpy(mask),
            chosen=tensors["chosen"].long() if "chosen" in tensors else top,
            vectors=tensors.get("vectors"),
            patches=tensors.get("patches"),
        )
    except (KeyError, ValueError) as error:
        raise DatasetError(f"{path}: no features of a volume ({error}). {_REMEDY}") from error
    complaint = _shape_complaint(features, facts)
    if complaint:
        raise DatasetError(f"{path}: {complaint}. {_REMEDY}")
    return features


def read_maps(path: Path) -> Tensor:
    """Return (S, P) float32: the attention of each structure over all patches, to 1/255 of its greatest.

    Raises:
        FileNotFoundError: there is no such file.
        DatasetError: damaged.
    """
    tensors, _ = _tensors(path)
    if not {"maps", "map_scale"} <= set(tensors):
        raise DatasetError(f"{path}: lacks the maps of attention. {_REMEDY}")
    return tensors["maps"].float() / MAP_STEPS * tensors["map_scale"][:, None]


def _tensors(path: Path, without: tuple[str, ...] = ()) -> tuple[dict[str, Tensor], dict[str, str]]:
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; it is made by 'd2rnet extract-ct-features-shard'.")
    try:
        with safe_open(path, framework="pt") as content:
            names = [name for name in content.keys() if name not in without]  # noqa: SIM118 (safe_open is no mapping)
            return {name: content.get_tensor(name) for name in names}, dict(content.metadata() or {})
    except (SafetensorError, OSError, ValueError) as error:
        raise DatasetError(f"{path}: not a readable safetensors file ({error}). {_REMEDY}") from error


def _shape_complaint(features: Features, facts: FeatureFacts) -> str | None:
    """Say what has another shape than the facts tell, or names a patch that there is none of; None if nothing does."""
    structures, most, patches = len(facts.structures), facts.most_per_structure, len(features.patch_mask)
    expected: dict[str, tuple[int, ...]] = {
        "observations": (structures, facts.queries_per_structure, facts.width),
        "top": (structures, most),
        "top_attention": (structures, most),
        "mean": (facts.width,),
        "chosen": (structures, most),
    }
    kept = "patches" if facts.patches == "all" else "vectors"
    expected[kept] = (patches, facts.width) if facts.patches == "all" else (structures, most, facts.width)
    for name, shape in expected.items():
        value = getattr(features, name)
        if value is None or tuple(value.shape) != shape:
            found = "nothing" if value is None else f"shape {tuple(value.shape)}"
            return f"{name}: got {found}; expected shape {shape}"
    for name in ("top", "chosen"):
        value = getattr(features, name)
        if int(value.min()) < NONE or int(value.max()) >= patches:
            return f"{name}: got patches {int(value.min())} to {int(value.max())}; expected {NONE} to {patches - 1}"
    return None


def feature_path(folder: Path, key: str, volume_path: str) -> Path:
    """Return the file of a volume's features.

    Args:
        folder: of the extraction.
        key: of the extraction.
        volume_path: of the entry.
    """
    return folder / FEATURES / key / Path(volume_path.removesuffix(".gz")).with_suffix(SUFFIX)


def load_facts(folder: Path) -> FeatureFacts:
    """Read features.json of extract-ct-features.

    Raises:
        FileNotFoundError: there is no such file.
        DatasetError: another document.
    """
    path = folder / INDEX
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; it is made by 'd2rnet extract-ct-features'.")
    content = read_json(path)
    remedy = "Run 'd2rnet extract-ct-features' again."
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        found = content.get("format") if isinstance(content, dict) else type(content).__name__
        raise DatasetError(f"{path}: got format {found!r}; expected '{FORMAT}'. {remedy}")
    try:
        return FeatureFacts.of(content.get("facts"))
    except ValueError as error:
        raise DatasetError(f"{path}: {error}. {remedy}") from error
