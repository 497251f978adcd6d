"""What decides the reading of a CT beside the models, in the file ``reading.json`` of the report model's folder.

The rule describe_ct_reading writes it from the configuration of the run, so that the folders of stage 1 and of the report
model are all that a reading needs, wherever they are copied to: a table of structures of one's own lies beside it.
"""

from collections.abc import Sequence
from pathlib import Path

from d2rnet.config import read_configuration
from d2rnet.ct.conversion.settings import CtConversionSettings
from d2rnet.ct.report_model.settings import CtFeatureSettings, CtGenerationSettings
from d2rnet.ct.structures.table import SHIPPED, StructureTable, load_table
from d2rnet.ct.volumes.settings import VolumeSettings
from d2rnet.errors import DatasetError
from d2rnet.files.atomic import write_text
from d2rnet.files.documents import read_json, write_json
from d2rnet.runs.cards import is_of_demo_cohort
from d2rnet.settings import Section

FILE = "reading.json"
TABLE = "structure_table.yaml"  # the table of a run that has its own, whatever it is called there


class CtReadingSettings(Section):
    """Settings of the reading of a CT.

    Attributes:
        volumes: section ``ct.data.volumes``.
        conversion: section ``ct.data.conversion``.
        table: table of structures, ``ct.structures.table``: the name of a shipped one, or ``structure_table.yaml``, which lies
            beside ``reading.json``.
        features: section ``ct.report.features``.
        generation: section ``ct.report.generation``.
        synthetic: the models were trained on the drawn CTs of the demo cohort.
    """

    volumes: VolumeSettings
    conversion: CtConversionSettings
    table: str
    features: CtFeatureSettings
    generation: CtGenerationSettings
    synthetic: bool = False

    @property
    def own_files(self) -> tuple[str, ...]:
        """Files of the report model's folder that the settings name."""
        return () if self.table in SHIPPED else (TABLE,)

    def structure_table(self, report_model: Path) -> StructureTable:
        """Load the table.

        Args:
            report_model: folder of these settings.

        Raises:
            ConfigError: as :func:`d2rnet.ct.structures.table.load_table`.
        """
        return load_table(self.table if self.table in SHIPPED else str(report_model / self.table))


def describe_ct_reading(*, report_model: Path, configfile: Sequence[Path] = ()) -> None:
    """Write ``reading.json`` into the folder of a report model, and beside it the table of structures of a run with its own.

    Args:
        report_model: folder of train-ct-report-model.
        configfile: YAML or JSON files, laid over ``config.yaml`` one after the other, as with Snakemake.

    Raises:
        ConfigError: a setting is unknown or out of range, or there is no such table of structures.
    """
    settings = read_configuration(configfile).ct
    table = settings.structures.table
    load_table(table)
    if table not in SHIPPED:
        write_text(report_model / TABLE, Path(table).read_text(encoding="utf-8"))
    volumes = settings.data.volumes
    reading = CtReadingSettings(
        # whoever reads one scan has no table of slopes and intercepts
        volumes=volumes.replaced(hu="auto") if volumes.hu == "raw" else volumes,
        conversion=settings.data.conversion,
        table=table if table in SHIPPED else TABLE,
        features=settings.report.features,
        generation=settings.report.generation,
        synthetic=is_of_demo_cohort(settings.data.reports.root),
    )
    write_json(report_model / FILE, reading.to_json())


def read_ct_reading_settings(report_model: Path) -> CtReadingSettings:
    """Read ``reading.json`` of a report model's folder.

    Raises:
        FileNotFoundError: it, or the table of structures that it names, is not there; the message says what writes it.
        DatasetError: it is not what describe-ct-reading writes.
    """
    path = report_model / FILE
    if not path.is_file():
        raise FileNotFoundError(
            f"{path}: no such file; expected the settings of readings. Run the workflow to its end, or "
            "'d2rnet describe-ct-reading' with the configuration of the run."
        )
    content = read_json(path)
    if not isinstance(content, dict):
        raise DatasetError(f"{path}: got a {type(content).__name__}; expected what 'd2rnet describe-ct-reading' writes.")
    settings = CtReadingSettings.read(content, source=str(path))
    if settings.table not in (*SHIPPED, TABLE):
        raise DatasetError(
            f"{path}: table: '{settings.table}'; expected {', '.join(SHIPPED)}, or {TABLE} beside it. Write it again with "
            "'d2rnet describe-ct-reading' and the configuration of the run."
        )
    for name in settings.own_files:
        if not (report_model / name).is_file():
            raise FileNotFoundError(
                f"{report_model / name}: no such file; {FILE} names it. Copy the model folder whole, or write both again with "
                "'d2rnet describe-ct-reading' and the configuration of the run."
            )
    return settings
