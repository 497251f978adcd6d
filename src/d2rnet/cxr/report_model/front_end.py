"""D2R-Net as a front end of the report stage: how a model folder becomes a D2R-Net again."""

from collections.abc import Mapping, Sequence
from typing import Any

from d2rnet.cxr.report_model.backbones import PIXEL_MEAN, PIXEL_STD
from d2rnet.cxr.report_model.model import D2RNet
from d2rnet.cxr.report_model.settings import TrainReportModelSettings
from d2rnet.errors import CheckpointError
from d2rnet.report.interface import FrontEnd
from d2rnet.report.model_files import LoadedModel


def facts_of(categories: Sequence[str], backbone_config: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return what a model folder says beside the settings.

    Args:
        categories: class names in the order of class ids 1, 2, ...
        backbone_config: of :func:`backbone_facts`, so that what the network started from is not needed again.
    """
    return {
        "categories": list(categories),
        "backbone_config": None if backbone_config is None else dict(backbone_config),
        "preprocessing": {"geometry": "letterbox", "channels": 1, "pixel_mean": PIXEL_MEAN, "pixel_std": PIXEL_STD},
    }


def categories_of(loaded: LoadedModel) -> tuple[str, ...]:
    """Return the class names that a model knows, in the order of its class ids 1, 2, ..."""
    return tuple(loaded.facts["categories"])


class _D2RNetFrontEnd(FrontEnd):
    def make_model(self, settings: TrainReportModelSettings, *, num_tokens: int, facts: Mapping[str, Any]) -> D2RNet:
        """Make a D2R-Net with random weights."""
        names = facts["categories"]
        if not (isinstance(names, list) and names and all(isinstance(name, str) for name in names)):
            raise CheckpointError("categories are no list of class names")
        backbone_config = facts["backbone_config"]
        return D2RNet(settings.model, num_tokens=num_tokens, num_categories=len(names), backbone_config=backbone_config)


D2RNET = _D2RNetFrontEnd(settings=TrainReportModelSettings, facts=("categories",), later_facts=("backbone_config",))
