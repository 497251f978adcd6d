"""Names of the sources of the CT wing, as ``config.yaml`` has them: a source is the module of its name in this folder.

Nothing is imported here, so that settings stay quick.
"""

from typing import Literal

CtSourceName = Literal["ct_rate", "radgenome", "ctrg", "folder"]
