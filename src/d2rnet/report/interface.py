"""What the report stage knows of a front end: visual tokens with a mask."""

from dataclasses import dataclass

from torch import Tensor


@dataclass
class VisualTokens:
    """What the branches see, before the encoder.

    Attributes:
        patches: (B, V P, C) patch features of all images of an entry.
        patch_mask: (B, V P) bool.
        lesions: (B, K, D) lesion tokens; K = 0 without a lesion branch.
        lesion_mask: (B, K) bool.
        tokens: (B, L, D) [embedded patches ; lesion tokens].
        mask: (B, L) bool.
    """

    patches: Tensor
    patch_mask: Tensor
    lesions: Tensor
    lesion_mask: Tensor
    tokens: Tensor
    mask: Tensor


@dataclass
class Encoded:
    """Visual tokens after the encoder: ``tokens`` (B, L, D), ``mask`` (B, L) bool, the last ``num_lesions`` are lesions."""

    tokens: Tensor
    mask: Tensor
    num_lesions: int
