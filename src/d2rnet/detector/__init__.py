"""``import d2rnet.detector`` makes the detector known to detectron2: another name of d2rnet.cxr.detector.registration."""

from d2rnet.cxr.detector.registration import *  # noqa: F403
