"""What a document takes over from the images it is about: patient, study, and which images they are.

Nothing else of a header gets into a document. Patient and study are taken over as they stand, so that an archive puts the
document into the same study; the file that comes of it is as protected as the image.

Source: DICOM PS3.3 C.7.1.1 (patient), C.7.2.1 (study), C.12.1 (SOP common).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pydicom import Dataset, dcmread
from pydicom.tag import Tag
from pydicom.uid import UID

from d2rnet.ct.volumes.dicom_series import series_slices
from d2rnet.cxr.images.reader import file_format
from d2rnet.errors import DatasetError
from d2rnet.files.dicom import silent_pydicom

PATIENT = (
    "PatientName", "PatientID", "IssuerOfPatientID", "PatientBirthDate", "PatientSex", "PatientIdentityRemoved",
    "DeidentificationMethod",
)  # fmt: skip
STUDY = (
    "StudyInstanceUID", "StudyDate", "StudyTime", "StudyID", "StudyDescription", "AccessionNumber", "ReferringPhysicianName",
)  # fmt: skip
IDENTITY = ("SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID")
GREY_LEVELS = (
    "SamplesPerPixel", "PhotometricInterpretation", "BitsStored", "PixelRepresentation", "RescaleSlope", "RescaleIntercept",
    "ModalityLUTSequence", "VOILUTSequence", "VOILUTFunction", "WindowCenter", "WindowWidth",
)  # fmt: skip
# What every document has, filled or blank; highdicom asks for them.
_NEVER_ABSENT = ("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "StudyID",
                 "AccessionNumber", "ReferringPhysicianName")  # fmt: skip
_IN_FILE_META = {"SOPClassUID": "MediaStorageSOPClassUID", "SOPInstanceUID": "MediaStorageSOPInstanceUID"}
_REMEDY = "Export it again from the archive, or leave out --dicom-sr."


@dataclass(frozen=True)
class Source:
    """One image that a reading is about.

    Attributes:
        path: its file.
        header: PATIENT, STUDY, IDENTITY and GREY_LEVELS of it, as far as they are there.
        identity: of IDENTITY only, and blanks: what highdicom is shown, which refuses values that real files have.
    """

    path: Path
    header: Dataset = field(repr=False)
    identity: Dataset = field(repr=False)


def read_sources(files: Sequence[Path]) -> list[Source]:
    """Read what a document takes over, and check that it belongs into one study.

    Args:
        files: DICOM files of the views of a study, or the folder of a CT series, of which the slices that are read count.

    Returns:
        One source a file; of slices, all.

    Raises:
        DatasetError: a file is no DICOM file, lacks an identity, or the files are of several studies or patients.
    """
    sources = [_read(path) for file in files for path in (series_slices(file) if file.is_dir() else [file])]
    for keyword, what in (("StudyInstanceUID", "studies"), ("PatientID", "patients")):
        found = {str(source.header.get(keyword) or "").strip() for source in sources}
        if len(found) > 1:
            raise DatasetError(
                f"{sources[0].path} and {len(sources) - 1} more: got images of {len(found)} {what}; expected those of one "
                "study, into which the documents go. Read each study alone, or leave out --dicom-sr."
            )
    return sources


def _read(path: Path) -> Source:
    """Read one header; no pixel is read.

    Raises:
        DatasetError: no DICOM file, a damaged one, or one without an identity.
    """
    kind = _kind(path)
    if kind != "DICOM":
        raise DatasetError(
            f"{path}: got {kind}; expected a DICOM file: --dicom-sr writes into the study of the image that is read. Give the "
            "DICOM original, or leave out --dicom-sr."
        )
    wanted = [Tag(name) for name in (*PATIENT, *STUDY, *IDENTITY, *GREY_LEVELS)]
    try:
        with silent_pydicom():
            header = dcmread(path, stop_before_pixels=True, force=True, specific_tags=wanted)
            identity = _identity(header)
            header.decode()
            [header[name] for name in (*PATIENT, *STUDY) if name in header]  # converts what is read as bytes
    except Exception as error:  # damaged files make pydicom raise almost anything; its texts may quote values
        got = f"a damaged DICOM header ({type(error).__name__})"
        raise DatasetError(f"{path}: got {got}; expected patient, study and identity of an image. {_REMEDY}") from error
    if lacking := [name for name in IDENTITY if not identity[name].value]:
        got = f"no valid {' and no valid '.join(lacking)}"
        raise DatasetError(f"{path}: got {got}; expected all of {', '.join(IDENTITY)}, which documents refer to. {_REMEDY}")
    return Source(path, header, identity)


def _kind(path: Path) -> str:
    try:
        return file_format(path)
    except DatasetError:
        return "no DICOM file"


def _identity(header: Dataset) -> Dataset:
    """Return the four identifiers, blank where they are no UIDs, and blanks."""
    identity = Dataset()
    for name in IDENTITY:
        stated = header.get(name) or header.file_meta.get(_IN_FILE_META.get(name, name))
        uid = UID(str(stated or "").strip(" \0"))
        setattr(identity, name, uid if uid.is_valid else "")
    for name in _NEVER_ABSENT:
        setattr(identity, name, "")
    return identity


def take_over(document: Dataset, source: Source) -> None:
    """Give a document the source's patient and study, word for word, in the source's character set.

    Or in UTF-8, where the document's own texts are not ASCII: the character set of the source may not hold them.
    """
    stated = source.header.get("SpecificCharacterSet")
    is_plain = all(str(element.value).isascii() for element in document.iterall() if element.VR != "SQ")
    document.SpecificCharacterSet = stated if is_plain else "ISO_IR 192"
    if not document.SpecificCharacterSet:
        del document.SpecificCharacterSet
    for name in (*PATIENT, *STUDY):
        if name in source.header and name not in IDENTITY:
            document[name] = source.header[name]
