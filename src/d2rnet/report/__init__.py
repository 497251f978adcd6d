"""D2R-Net: ``annotation.json`` in, weights and generated reports out."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from d2rnet.report.decoder.r2gen_decoder import load_r2gen_decoder

__all__ = ["load_r2gen_decoder"]


def __getattr__(name: str) -> Any:
    """Import what needs torch at its first use: the environments of some rules have none."""
    if name in __all__:
        return getattr(importlib.import_module("d2rnet.report.decoder.r2gen_decoder"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
