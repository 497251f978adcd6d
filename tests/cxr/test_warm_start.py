"""A report model starts from a detector of its own kind, or not at all."""

from typing import Any

import pytest

from d2rnet.cxr.detector.settings import DetectorModelSettings
from d2rnet.cxr.report_model.settings import D2RNetModelSettings
from d2rnet.cxr.warm_start import check_warm_start
from d2rnet.errors import ConfigError

OWN: dict[str, Any] = {"backbone_weights": "detector", "backbone": "resnet50", "backbone_width": 64}
DETECTOR: dict[str, Any] = {"backbone_depth": 50, "backbone_width": 64, "norm": "BN"}


def check(detector: dict[str, Any], report: dict[str, Any]) -> None:
    check_warm_start(DetectorModelSettings(**DETECTOR | detector), D2RNetModelSettings(**OWN | report), what="arm x")


def test_one_kind_fits() -> None:
    check({}, {})
    check_warm_start(DetectorModelSettings(), D2RNetModelSettings())  # as shipped
    check({"norm": "GN", "backbone_depth": 34}, {"backbone_weights": None})
    check({"stride_in_1x1": True}, {})
    check({"stride_in_1x1": True, "backbone_depth": 34}, {"backbone": "resnet34"})  # which has no 1 x 1


@pytest.mark.parametrize(
    ("detector", "report", "message"),
    [
        ({}, {"backbone_width": 32}, "arm x: .*expected model.backbone_width 64, or other"),
        ({"backbone_depth": 34}, {}, "expected model.backbone resnet34, or other"),
        ({"norm": "GN"}, {}, "norm is GN"),
    ],
)
def test_another_kind_is_refused(detector: dict[str, Any], report: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check(detector, report)
