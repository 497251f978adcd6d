"""The gate: what a file says, or shows at a glance, that a frontal chest radiograph would not.

One list of doubts for all who ask: verify_inputs leaves out what is *certain* to be no chest radiograph and counts the rest;
'd2rnet read' shows every doubt above the text, or refuses the file with ``--strict``. Own choice throughout; terms from DICOM
PS3.3 C.7.3.1.1.1 (modality), C.8.11.5.1.1 (view position), C.7.6.1.1.1 (patient orientation), C.7.1.1 (species), PS3.16
Annex L (body parts).

A text that is no term of the standard is never repeated: in a damaged file it may be anybody's name.
"""

import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from pydicom import Dataset
from pydicom.uid import UID

from d2rnet.cxr.images.radiograph import RadiographHeader
from d2rnet.cxr.images.views import shows_view


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


UNKNOWN = "?"  # something is stated that is no term of the standard
LEAST_SIDE_PX = 200  # of a radiograph in which a person could still find a nodule of 10 mm (6 px of a chest 35 cm wide)
LEAST_POSSIBLE_SIDE_PX = 32  # an icon
MOST_ELONGATED = 2.0  # longer side by shorter; the real ones in docs/reference/robustness.md have at most 1.42
MOST_POSSIBLE_ELONGATED = 5.0  # whole-spine and whole-leg pictures have 3 to 4
RADIOGRAPHY = frozenset({"CR", "DX", "DR", "RG", "RF"})
# Secondary captures, scanned films and exports, which may well be of a chest.
_OPEN_MODALITIES = frozenset({"OT", "SC", "HC"})
_OTHER_MODALITIES = _words(
    "AR AS ASMT AU BDUS BI BMD CD CF CP CS CT CTPROTOCOL DD DF DG DM DMS DOC DS EC ECG EEG EMG EOG EPS ES FA FID FS "
    "GM HD IO IOL IVOCT IVUS KER KO LEN LP LS MA MG MR MS NM OAM OCT OP OPM OPT OPTBSV OPTENF OPV OSS PLAN PR PT PX "
    "REG RESP RTDOSE RTIMAGE RTINTENT RTPLAN RTRAD RTRECORD RTSEGANN RTSTRUCT RWV SEG SM SMR SR SRF ST STAIN "
    "TEXTUREMAP TG US VA VF XA XC"
)
_CHEST = re.compile(r"CHE?ST|THORA|TORA[XC]|LUNG|PULM|POUMON|BRUST|CXR|HEART|CARDI")
_NOTHING_SAID = frozenset({"", "UNKNOWN", "OTHER", "NONE", "UNSPECIFIED", "N A", "NA", "BODY", "WHOLEBODY", "TRUNK"})
_DESCRIPTIONS = ("SeriesDescription", "ProtocolName", "StudyDescription", "RequestedProcedureDescription")
_C_ARM = re.compile(r"\bC ARM\b")  # a machine
_PEOPLE = re.compile(r"^(?:HUMAN|HOMO|PERSON)")
_ANIMALS = re.compile(
    r"CANINE|CANIS|\bDOGS?\b|FELINE|FELIS|\bCATS?\b|EQUINE|EQUUS|HORSE|BOVINE|PORCINE|\bPIGS?\b|AVIAN|RABBIT|RATTUS|\bRATS?\b"
    r"|MOUSE|MURINE|OVINE|CAPRINE|MONKEY|MACACA|MACAQUE|REPTIL"
)
ANIMAL = "animal"
_SPINE = re.compile(r"SPINE|VERTEBRA|WIRBEL|THORACOLUMBAR")
_OTHER_PARTS = _words(
    "ABDOMEN ABDOMENPELVIS ANKLE ANUS ARM BLADDER BRAIN BREAST BUTTOCK CALCANEUS CALF COCCYX COLON EAR ELBOW "
    "EXTREMITY EYE EYELID FACE FEMUR FINGER FOOT FOREARM HAND HEAD HEADNECK HIP HUMERUS IAC ILEUM JAW KIDNEY KNEE "
    "LARYNX LEG LIVER LOWLIMB MANDIBLE MAXILLA MOUTH NECK NOSE ORBIT PANCREAS PATELLA PELVIS PENIS PHARYNX PROSTATE "
    "RADIUS RECTUM SACRUM SCROTUM SINUS SKULL STOMACH TEETH TESTIS THIGH THUMB TIBIA FIBULA TMJ TOE TONGUE ULNA UPARM "
    "UPLIMB URETER URETHRA UTERUS VAGINA VULVA WRIST"
)
_VIEW_TERMS = frozenset({"RLD", "LLD", "RLO", "LLO", "MLO", "ML", "LM", "CC", "LMO", "FB", "SIO", "XCC", "XCCL", "XCCM"})
_OF_IMAGE_CLASSES = {
    "CT": r"CT Image",
    "MR": r"MR (?:Color )?Image",
    "US": r"Ultrasound",
    "MG": r"Mammography|Breast",
    "NM": r"Nuclear Medicine",
    "PT": r"Positron Emission|PET Image",
    "XA": r"X-Ray (?:Angio|3D Angio)",
    "IO": r"Intra-Oral",
    "XC": r"VL Photographic",
    "ES": r"VL Endoscopic",
    "SM": r"VL (?:Whole )?Slide|VL Microscopic",
    "OP": r"Ophthalmic",
    "RTIMAGE": r"RT Image",
}


@dataclass(frozen=True)
class Doubt:
    """A reason to doubt that a file is a frontal chest radiograph.

    Attributes:
        kind: ``modality``, ``body_part``, ``species``, ``colour``, ``one_grey_level``, ``side``, ``aspect``, ``view`` or
            ``orientation``.
        text: what was found, against what is expected.
        is_certain: no chest radiograph is like that; verify_inputs leaves the file out.
    """

    kind: str
    text: str
    is_certain: bool = False


def stated_modality(dataset: Dataset) -> str:
    """Return the modality that a data set states: a term, "" where none, UNKNOWN for any other text.

    The class of the file (SOP class) tells of those that make no radiographs: alone where the modality is blank or one that
    may hold anything, as "DX in a file of class MG" where it contradicts.
    """
    modality = _first(dataset, "Modality").upper()
    uid = dataset.get("SOPClassUID")
    name = str(uid.name) if isinstance(uid, UID) else ""
    by_class = next((code for code, pattern in _OF_IMAGE_CLASSES.items() if re.search(rf"\b(?:{pattern})", name)), "")
    if modality in RADIOGRAPHY:
        return f"{modality} in a file of class {by_class}" if by_class else modality
    if modality in _OPEN_MODALITIES | {""}:
        return by_class or modality
    return modality if modality in _OTHER_MODALITIES else UNKNOWN


def stated_body_part(dataset: Dataset) -> str:
    """Return CHEST, another body part of the standard, "" where none is named, UNKNOWN for any other text.

    Wordings of vendors and of other languages count as CHEST: "THORAX", "CHEST PA", "PORT CHEST", "Tórax". Where
    BodyPartExamined says nothing, the meaning of the code in AnatomicRegionSequence counts.
    """
    said = _body_part(_first(dataset, "BodyPartExamined"))
    return said or _body_part(_meaning(dataset, "AnatomicRegionSequence"))


def described_body_part(dataset: Dataset) -> str:
    """Return a body part that a description of series, protocol or study names; "" where none does or one names the chest."""
    named = [_body_part(_C_ARM.sub(" ", _plain(_first(dataset, keyword)))) for keyword in _DESCRIPTIONS]
    return "" if "CHEST" in named else next((part for part in named if part not in ("", UNKNOWN)), "")


def stated_species(dataset: Dataset) -> str:
    """Return "" where a data set names no species but our own, else ANIMAL, or UNKNOWN for a text that is neither."""
    stated = (_first(dataset, "PatientSpeciesDescription"), _meaning(dataset, "PatientSpeciesCodeSequence"))
    others = [text for said in stated if (text := _plain(said)) not in _NOTHING_SAID and not _PEOPLE.match(text)]
    return "" if not others else ANIMAL if any(map(_ANIMALS.search, others)) else UNKNOWN


def _plain(said: str) -> str:
    """Return words in capitals, without accents and punctuation."""
    raw = unicodedata.normalize("NFKD", said.upper())
    return " ".join(re.findall(r"[^\W_]+", "".join(letter for letter in raw if not unicodedata.combining(letter))))


def _body_part(said: str) -> str:
    text = _plain(said)
    if text in _NOTHING_SAID:
        return ""
    if _SPINE.search(text) and "CHEST" not in text:
        return "SPINE"
    if _CHEST.search(text):
        return "CHEST"
    return next((word for word in text.split() if word in _OTHER_PARTS), UNKNOWN)


def stated_view(dataset: Dataset) -> str:
    """Return ViewPosition where it is a term of the standard, UNKNOWN for any other text, also of a view code; "" for none."""
    position = _first(dataset, "ViewPosition").upper()
    if not position and _meaning(dataset, "ViewCodeSequence"):
        return UNKNOWN
    return position if position in _VIEW_TERMS | {""} else UNKNOWN


def stated_orientation(dataset: Dataset) -> str:
    """Return PatientOrientation, such as ``L\\F``, where it is two directions of a person; else ""."""
    value = dataset.get("PatientOrientation")
    directions = [str(part).strip().upper() for part in value] if value and not isinstance(value, str) else []
    is_sound = len(directions) == 2 and all(re.fullmatch("[APLRHF]{1,3}", direction) for direction in directions)
    return "\\".join(directions) if is_sound else ""


def _first(dataset: Dataset, name: str) -> str:
    value = dataset.get(name)
    if value is not None and not isinstance(value, str):
        value = next(iter(value), "")
    return str(value or "").strip(" \t\r\n\0")


def _meaning(dataset: Dataset, name: str) -> str:
    """Return the meaning of the first code of a sequence, "" where there is none."""
    codes = dataset.get(name)
    return _first(codes[0], "CodeMeaning") if isinstance(codes, Sequence) and codes else ""


def find_doubts(header: RadiographHeader, *, views: Sequence[str], max_side_px: int) -> list[Doubt]:
    """List what speaks against a frontal chest radiograph.

    Args:
        header: of the file, with what :func:`d2rnet.cxr.images.reader.look_at` adds.
        views: views that the models are trained on; empty: any that is known.
        max_side_px: longer side of the image that the models see; small pictures are told by it too.
    """
    return [*_stated(header, views), *_shown(header, max_side_px)]


def _stated(header: RadiographHeader, views: Sequence[str]) -> Iterator[Doubt]:
    radiography = f"expected radiography ({', '.join(sorted(RADIOGRAPHY))})"
    if header.modality == UNKNOWN:
        yield Doubt("modality", f"states a modality that DICOM does not know; {radiography}")
    elif header.modality and header.modality not in RADIOGRAPHY:
        yield Doubt("modality", f"modality {header.modality}; {radiography}", header.modality in _OTHER_MODALITIES)
    if header.species:
        yield Doubt("species", "states a species that is not human", header.species == ANIMAL)
    if header.body_part == UNKNOWN:
        yield Doubt("body_part", "names a body part that is neither chest nor another term of DICOM; expected CHEST")
    elif header.body_part not in ("", "CHEST"):
        yield Doubt("body_part", f"body part {header.body_part}; expected CHEST", is_certain=True)
    elif not header.body_part and header.described_part:
        yield Doubt("body_part", f"a description names {header.described_part}, and none the chest; expected CHEST")
    if header.view:
        if not shows_view(header.view, views):
            yield Doubt("view", f"view {header.view}; the models were trained on {', '.join(views)}")
    elif header.other_view:
        named = "that is none of" if header.other_view == UNKNOWN else f"{header.other_view}, none of"
        yield Doubt("view", f"states a view {named} {', '.join(views or ('PA', 'AP', 'LATERAL'))}")
    if header.orientation:
        yield from _turned(header)


def _turned(header: RadiographHeader) -> Iterator[Doubt]:
    """Yield a doubt unless rows run to the patient's left (to front or back in a lateral view) and columns to the feet."""
    row, column = (direction[0] for direction in header.orientation.split("\\"))
    stated = f"PatientOrientation {header.orientation}"
    if row in "HF" or column not in "HF":
        yield Doubt("orientation", f"{stated}: turned on its side; expected L\\F")
    elif row in "AP" and header.view != "LATERAL":
        yield Doubt("orientation", f"{stated}: seen from the side; expected L\\F")
    elif row == "R" and column == "H":
        yield Doubt("orientation", f"{stated}: turned by 180 degrees; expected L\\F")
    elif row == "R":
        yield Doubt("orientation", f"{stated}: mirrored, so that right is left; expected L\\F")
    elif column == "H":
        yield Doubt("orientation", f"{stated}: upside down; expected L\\F")


def _shown(header: RadiographHeader, max_side_px: int) -> Iterator[Doubt]:
    size = f"{header.width} x {header.height} px"
    shorter, longer = sorted((header.height, header.width))
    least = min(LEAST_SIDE_PX, max_side_px // 2)
    if shorter < max(least, LEAST_POSSIBLE_SIDE_PX):
        yield Doubt("side", f"{size}; expected at least {least} px a side", shorter < LEAST_POSSIBLE_SIDE_PX)
    if longer > MOST_ELONGATED * shorter:
        text = f"{size}, one side {longer / shorter:.1f} times the other; expected at most {MOST_ELONGATED:g} times"
        yield Doubt("aspect", text, longer > MOST_POSSIBLE_ELONGATED * shorter)
    if header.is_coloured:
        yield Doubt("colour", "a picture in colour; expected shades of grey")
    if header.one_grey_level:
        yield Doubt("one_grey_level", "all pixels have one grey level", is_certain=True)


def no_chest_radiograph(doubts: Sequence[Doubt], path: Any) -> str:
    """Return why a file is left out, naming it; "" where nothing is certain."""
    certain = [doubt.text for doubt in doubts if doubt.is_certain]
    return f"{path}: no chest radiograph: {'; '.join(certain)}. Leave it out." if certain else ""
