"""Settings of the CT source: what is read, and from where."""

from typing import Literal

from d2rnet.ct.sources.registry import CtSourceName
from d2rnet.settings import Section, setting


class CtSourceSettings(Section):
    """The source of chest CT volumes with reports."""

    place = "ct.data.reports"

    source: CtSourceName = setting("ct_rate")
    """Which source."""
    root: str = setting("resources/ct/demo_cohort/ct_rate")
    """Folder of the source; never written to."""
    release: Literal["auto", "v1", "v2"] = setting("auto")
    """ct_rate, radgenome: which tree holds the volumes, v1 (train, valid) or v2 (train_fixed, valid_fixed); auto takes the one
    that is there and stops where both are."""
    reconstructions: Literal["one", "all"] = setting("one")
    """ct_rate: one takes the lowest reconstruction number of a scan whose file is there and which is a chest; all keeps every
    one, as volumes of one study. Reconstructions of a scan are not independent samples."""
    region_root: str | None = setting(None)
    """radgenome: folder of the region reports; null: radgenome_files below root."""
    region_mask_root: str | None = setting(None)
    """radgenome: folder that holds train_region_mask and valid_region_mask; null: root. For evaluation only."""
    table: str = setting("studies.csv")
    """folder: CSV relative to root with columns path and report, if known subject_id, study_id, split, impression. ctrg: JSON
    relative to root."""
    id_map: str | None = setting(None)
    """ctrg, folder: CSV id,alias relative to root. Study ids that may name a person are replaced by their alias; only paths of
    the source's files, in the tables below resources, and messages about a record still tell them."""
    section: Literal["findings", "impression"] = setting("findings")
    """Which report section is the target."""
    val_fraction: float = setting(0.05, gt=0, lt=0.5)
    """Share of the training patients set aside for validation, where the source has no validation split of its own."""
    split_seed: int = setting(1, ge=0)
    """Seed of that split, and of the patient-grouped 70/10/20 split of sources without any."""
    require_all: bool = setting(True)
    """Whether a volume that the tables list and the disk lacks is an error; false takes what is there and counts the rest."""
