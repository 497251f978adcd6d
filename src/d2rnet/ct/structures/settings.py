"""Settings of the structures that reports are cut into."""

from d2rnet.settings import Section, setting


class StructureSettings(Section):
    """How findings are cut into structures, and what counts as abnormal."""

    place = "ct.structures"

    table: str = setting("ten", min_length=1)
    """Table of structures: ten (Liu, Wei et al., arXiv 2603.04878), radgenome (RadGenome-ChestCT's regions), fvlm (fVLM's four
    anatomies), or the path of a YAML file of the same form."""
    uncertain_counts: bool = setting(True)
    """Whether a finding that the report doubts ("may", "suspicious for", "cannot be excluded") counts as there, for abnormal
    and for the 18 labels."""
