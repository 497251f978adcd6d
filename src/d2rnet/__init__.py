"""D2R-Net pipeline: chest radiographs, from box annotations to written reports.

Imports point one way: ``cli -> evaluation, report, annotation, detector -> data``.
Stages meet only in files (docs/reference/formats.md).
"""

__version__ = "0.1.0"
