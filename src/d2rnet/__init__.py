"""D2R-Net pipeline: chest radiographs, from box annotations to written reports.

Imports point down: from the command line over the wings (``cxr``) to the common ground (tests/test_style.py has the layers).
Stages meet only in files (docs/reference/formats.md).
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from d2rnet.reading.ct import CtModels, load_ct_models
    from d2rnet.reading.ct_result import CtReading
    from d2rnet.reading.cxr import Models, load_models
    from d2rnet.reading.own_boxes import OwnBox
    from d2rnet.reading.result import Reading

__all__ = ["CtModels", "CtReading", "Models", "OwnBox", "Reading", "__version__", "load_ct_models", "load_models"]
__version__ = "0.1.0"
_PLACES = {
    "CtModels": "ct",
    "CtReading": "ct_result",
    "load_ct_models": "ct",
    "Models": "cxr",
    "OwnBox": "own_boxes",
    "load_models": "cxr",
    "Reading": "result",
}


def __getattr__(name: str) -> Any:
    """Import what reads images at its first use: it needs torch, and ``import d2rnet`` stays quick."""
    if name in _PLACES:
        return getattr(importlib.import_module(f"d2rnet.reading.{_PLACES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """Name what there is for an editor or notebook to complete, imported or not."""
    return sorted({*globals(), *__all__})
