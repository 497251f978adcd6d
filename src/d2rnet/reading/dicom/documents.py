"""All documents of a reading, and the files that they are written to.

Study and patient are those of the source, so that an archive puts a document beside its image. Series and instances are new
with every reading: a document states when it was made, and one identifier must never stand for two contents. A file keeps its
identifiers, so that sending it twice leaves one document.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydicom import Dataset, dcmwrite
from pydicom.uid import generate_uid

from d2rnet.files.atomic import atomic_path
from d2rnet.files.dicom import silent_pydicom
from d2rnet.reading.ct_result import CtReading
from d2rnet.reading.dicom.presentation import presentation_of
from d2rnet.reading.dicom.report import ct_report, radiograph_report
from d2rnet.reading.dicom.software import Software
from d2rnet.reading.dicom.source import Source, read_sources
from d2rnet.reading.dicom.tracking import track
from d2rnet.reading.result import Reading

REPORT = "report"
PRESENTATION = "presentation"


@dataclass(frozen=True)
class DicomExport:
    """A folder of documents that grows reading by reading.

    Attributes:
        folder: made if needed.
    """

    folder: Path

    def sources(self, files: Sequence[Path]) -> list[Source]:
        """Read what the documents of a reading take over, before it is made; see :func:`read_sources`.

        Raises:
            DatasetError: no DICOM file, or one that cannot be referred to.
        """
        return read_sources(files)

    def documents(self, reading: Reading | CtReading, sources: Sequence[Source]) -> dict[str, Dataset]:
        """Return the documents of a reading.

        Args:
            reading: of DICOM files.
            sources: of its images in their order, or of the slices of its CT.

        Returns:
            ``report``, and for radiographs ``presentation`` or, of several views, ``presentation_1`` and so on: one of each
            view that has boxes.

        Raises:
            DatasetError: the grey levels of a header are not to be written.
        """
        with silent_pydicom():
            if isinstance(reading, CtReading):
                return {REPORT: ct_report(reading, sources)}
            return _of_radiographs(reading, sources)

    def write(self, documents: Mapping[str, Dataset], name: str) -> dict[str, Path]:
        """Write documents as ``<name>.<document>.dcm``, each atomically.

        Args:
            documents: of a reading.
            name: of the reading; with "/" it leads to a folder below.

        Returns:
            Document -> file.

        Raises:
            OSError: a file cannot be written; no half file remains.
        """
        files = {}
        for kind, document in documents.items():
            files[kind] = self.folder / f"{name}.{kind}.dcm"
            with silent_pydicom(), atomic_path(files[kind]) as temporary:
                dcmwrite(temporary, document, enforce_file_format=True)
        return files


def _of_radiographs(reading: Reading, sources: Sequence[Source]) -> dict[str, Dataset]:
    tracked = track(reading)
    documents: dict[str, Dataset] = {REPORT: radiograph_report(reading, sources, tracked)}
    software = Software.of(reading.origin)
    series_uid = generate_uid(None)
    for number, (view, source) in enumerate(zip(reading.images, sources, strict=True)):
        own = [one for one in tracked if one.box.image == number]
        name = PRESENTATION if len(reading.images) == 1 else f"{PRESENTATION}_{number + 1}"
        if own:
            documents[name] = presentation_of(view, source, own, software, series_uid=series_uid, number=number + 1)
    return documents
