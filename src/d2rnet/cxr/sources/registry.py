"""Names of the sources, as ``config.yaml`` has them: a source is the module of its name in this folder.

The one line that a new source adds outside its own module and test. Nothing is imported here, so that settings stay quick.
"""

from typing import Literal

LabelledName = Literal["vindr", "vinbigdata", "nih", "coco"]
ReportName = Literal["mimic", "openi", "r2gen"]
UnlabelledName = Literal["folder"]
