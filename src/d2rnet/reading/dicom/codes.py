"""Codes of what documents speak of: SNOMED CT where one says just what is meant, else a scheme of our own, 99D2RNET.

SNOMED codes are those of the international edition, each compared with two sources. (PS3.16 and the dictionaries made from it
give 287272002 for cardiomegaly in CID 12248, which SNOMED has for an enlarged opening in the septum of the heart: not taken.)
Classes that join two things, or that no code says, are our own: the number of the class in VinDr-CXR's order.
"""

from types import MappingProxyType

from highdicom.coding_schemes import CodingSchemeIdentificationItem
from highdicom.sr import CodedConcept

from d2rnet.ct.structures.table import structure_title
from d2rnet.findings.classes import CATEGORY_IDS

SCHEME = "99D2RNET"
OWN_SCHEME = CodingSchemeIdentificationItem(
    SCHEME, name="Findings, structures and scores of d2rnet", responsible_organization="D2R-Net pipeline maintainers"
)
CLASSES = MappingProxyType(
    {
        "Atelectasis": ("46621007", "Atelectasis"),
        "Cardiomegaly": ("8186001", "Cardiomegaly"),
        "Clavicle fracture": ("58150001", "Fracture of clavicle"),
        "Consolidation": ("95436008", "Lung consolidation"),
        "Edema": ("19242006", "Pulmonary edema"),
        "Emphysema": ("87433001", "Pulmonary emphysema"),
        "ILD": ("233703007", "Interstitial lung disease"),
        "Pleural effusion": ("60046008", "Pleural effusion"),
        "Pneumothorax": ("36118008", "Pneumothorax"),
        "Pulmonary fibrosis": ("51615001", "Fibrosis of lung"),
        "Rib fracture": ("33737001", "Fracture of rib"),
    }
)
STRUCTURES = MappingProxyType(
    {
        "trachea_bronchi": ("110726009", "Trachea and bronchus"),
        "lung": ("39607008", "Lung"),
        "oesophagus": ("32849002", "Esophagus"),
        "pleura": ("3120008", "Pleura"),
        "bone": ("272673000", "Bone"),
        "thyroid": ("69748006", "Thyroid"),
        "abdomen": ("818981001", "Abdomen"),
    }
)
SCORE = CodedConcept("SCORE", SCHEME, "Score of the detector, 0 to 1, not a probability")
NO_UNIT = CodedConcept("1", "UCUM", "no units")
# of those that TID 1500 offers (CID 100)
RADIOGRAPHY = CodedConcept("43468-8", "LN", "XR unspecified body region")
CT = CodedConcept("25045-6", "LN", "CT unspecified body region")
FINDING = CodedConcept("121071", "DCM", "Finding")
FINDING_SITE = CodedConcept("363698007", "SCT", "Finding Site")
ENGLISH = CodedConcept("en-US", "RFC5646", "English (United States)")
COMMENT = CodedConcept("121106", "DCM", "Comment")
MEASUREMENT_REPORT = CodedConcept("126000", "DCM", "Imaging Measurement Report")
PROCEDURE_REPORTED = CodedConcept("121058", "DCM", "Procedure reported")
IMAGING_MEASUREMENTS = CodedConcept("126010", "DCM", "Imaging Measurements")
QUALITATIVE_EVALUATIONS = CodedConcept("C0034375", "UMLS", "Qualitative Evaluations")


def class_concept(label: str) -> CodedConcept:
    """Return the code of a class of boxes.

    Args:
        label: one of the 22 names.

    Raises:
        KeyError: no such class.
    """
    if label in CLASSES:
        value, meaning = CLASSES[label]
        return CodedConcept(value, "SCT", meaning)
    return CodedConcept(f"CXR{CATEGORY_IDS[label]:02d}", SCHEME, label)


def structure_concept(name: str) -> CodedConcept:
    """Return the code of a structure of chest CT; one without a code of SNOMED has its name as its code."""
    if name in STRUCTURES:
        value, meaning = STRUCTURES[name]
        return CodedConcept(value, "SCT", meaning)
    return CodedConcept(name, SCHEME, structure_title(name))
