"""Words for the 22 lesion classes in English chest reports: data for mentions.py, no logic.

All patterns are searched in a normalised sentence: lower case, hyphens and slashes as spaces, commas as words of their own
(mention_text.py). Own work; what counts as which class is stated in docs/reference/metrics.md. The global labels of
VinDr-CXR (pneumonia, tuberculosis, COPD, lung tumour as a diagnosis) are no local class and are not looked for.
"""

from collections.abc import Mapping

from d2rnet.findings.mention_cues import any_of

# Words that a pattern with a gap never crosses: they open another statement. "not" is no such word: "is not enlarged".
_STOP = (
    r"no|without|but|there|normal|unremarkable|intact|clear|heart|cardiac|lungs?|hil(?:um|a|ar)|mediastin\w+|aort\w+|"
    r"pleura\w*|effusions?|diaphragm\w*|hemidiaphragms?|fractur\w+|rib|ribs|clavic\w+|catheter|tube|line"
)


def _gap(most: int, *, stop: str = _STOP) -> str:
    """Up to ``most`` words, none of them one of ``stop``, and no comma."""
    return rf"(?: (?!(?:{stop})\b)[a-z0-9]+){{0,{most}}}"


_HEART = (
    r"(?:heart|cardiac|cardio ?mediastinal|cardio ?pericardial|cardio ?thymic)"
    r"(?: (?:and )?(?:mediastinal )?(?:size|silhouette|shadow|contours?|outline|borders?))?"
)
_AORTA = r"(?:aorta|aortic(?: (?:arch|knob|knuckle|root|contour|shadow|silhouette))?)"
_PULMONARY_ARTERY = r"pulmonary (?:arter(?:y|ies|ial)|trunk|outflow tract)(?: (?:segment|trunk|contour|shadow)s?)?"
_MIDLINE = r"(?:mediastin(?:um|al)(?: (?:structures?|silhouette|contents))?|trachea\w*|midline(?: structures)?)"
_LARGE = r"(?:enlarged?|enlargement|enlarging|dilat(?:ed|ion|ation)|prominen(?:t|ce))"
_AORTIC = rf"(?:{_LARGE}|ectatic|ectasia|aneurysm\w*|tortuous|tortuosity|unfold\w*|uncoil\w*|elongat\w+|widen\w+|bulg\w+)"
_BIG_HEART = r"(?:enlarged?|enlargement|large|big|increased|prominen(?:t|ce)|widened|globular|borderline)"
_SHIFTED = r"(?:shift\w*|deviat\w+|displaced|displacement)"
_TO_A_SIDE = r"(?: (?:slightly |minimally )?(?:to|towards?) the (?:patients )?(?:left|right))?"
_OTHER = any_of("""
    heart cardiac aort\\w+ pulmonary hil\\w+ ribs? fractur\\w+ lungs? nodes? azygos hernia hiatal pleural effusions? mass
    nodules? opacit\\w+
""")
_NOT_OTHER = rf"(?! (?:[a-z]+ )?{_OTHER}\b)"
_CLAVICLE = r"(?:clavic\w+)"
_RIB = r"(?:ribs?|costal)(?! (?:[a-z]+ ){0,3}(?:intact|normal|unremarkable))"
_FRACTURE = r"fractur\w+"
_BONE_STOP = r"no|not|without|but|there|vertebra\w*|spine|spinal|humerus|humeral|scapula\w*|otherwise"
_BONE_GAP = rf"(?: (?!(?:{_BONE_STOP})\b)(?:[a-z0-9]+|,)){{0,12}}"
_ANGLE = r"(?:costo ?phrenic|cp) (?:angles?|sulc(?:us|i)|recess(?:es)?|xxxx)"
_DEVICE = r"(?:pace ?makers?|pacer|aicd|icd|defibrillators?|(?:device|pulse) generator|implanted device)"

_START = r"(?<![a-z0-9,;] )"  # of the sentence, as in "Heart: normal."

PATTERNS: Mapping[str, tuple[str, ...]] = {
    "Aortic enlargement": (
        rf"{_AORTA}{_gap(6)} {_AORTIC}{_NOT_OTHER}",
        rf"{_AORTIC}(?: (?:,|and(?: or)?) [a-z]+)?{_gap(6)} {_AORTA}",
        rf"{_START}{_AORTA} ,(?: [a-z]+ly)? {_AORTIC}",
    ),
    "Atelectasis": (
        r"atelec\w+",
        r"collapsed? (?:of )?(?:the )?(?:[a-z]+ ){0,4}(?:lungs?|lobes?|lingula)",
        r"(?:lung|lobe|lobar|lingular|segmental) collapse",
    ),
    "Calcification": (r"calcif\w+", r"calcium deposits?", r"granuloma(?:s|ta|tous)?"),
    "Cardiomegaly": (
        r"cardiomegaly",
        rf"{_HEART}{_gap(6)} {_BIG_HEART}{_NOT_OTHER}",
        rf"{_HEART} ,(?: [a-z]+ly)? enlarged",
        rf"(?:{_BIG_HEART}|increase)(?: (?:in|of|size|the|overall)){{0,4}} {_HEART}",
    ),
    "Clavicle fracture": (rf"{_CLAVICLE}{_BONE_GAP} {_FRACTURE}", rf"{_FRACTURE}{_BONE_GAP} {_CLAVICLE}"),
    "Consolidation": (r"consolidat\w+",),
    "Edema": (r"(?:o?edema(?:tous)?)",),
    "Emphysema": (r"emphysema(?:tous)?", r"bullous(?: disease| changes?)?", r"bullae?", r"blebs?"),
    "Enlarged PA": (
        rf"{_PULMONARY_ARTERY}{_gap(5)} {_LARGE}{_NOT_OTHER}",
        rf"(?:{_LARGE}|large){_gap(4)} {_PULMONARY_ARTERY}",
    ),
    "ILD": (
        r"interstitial (?:lung |pulmonary )?(?:disease|process|change|changes|prominence|thickening|abnormality|pneumonitis)",
        r"interstitial (?:opacit\w+|densit\w+|infiltrat\w+|fibrosis|scarring|coarsening)",
        rf"(?:increased?|prominen\w+|coarse\w*|accentuat\w+|thicken\w+|chronic|diffuse){_gap(4)} interstiti\w+",
        rf"interstiti\w+{_gap(5)} (?:increased?|prominen\w+|coarse\w*|accentuat\w+|thickened)",
        r"reticul\w+(?: (?:nodular|interstitial))?(?: (?:opacit\w+|markings?|pattern|changes?|densit\w+|infiltrat\w+))?",
        r"ild",
    ),
    "Infiltration": (r"infiltrat\w+",),
    "Lung Opacity": (
        r"opaci\w+", r"densit(?:y|ies)", r"ground glass", r"air ?space (?:disease|process|filling)", r"haz(?:y|e|iness)",
    ),
    "Lung cavity": (r"cavit\w+",),
    "Lung cyst": (r"cysts?", r"cystic", r"pneumatoceles?"),
    "Mediastinal shift": (
        rf"{_MIDLINE}{_gap(5, stop='no|without|but|there|rib|ribs|fractur[a-z]+')} {_SHIFTED}{_TO_A_SIDE}{_NOT_OTHER}",
        rf"{_HEART}(?: and mediastinum)?{_gap(3)} (?:shifted|displaced|deviated){_TO_A_SIDE}",
        rf"{_SHIFTED}{_gap(4, stop='no|without|but|there|rib|ribs|fractur[a-z]+')} {_MIDLINE}{_TO_A_SIDE}",
    ),
    "Nodule/Mass": (r"nodul(?:e|es|ar|arity)", r"mass(?:es)?", r"masslike", r"neoplasms?", r"tumou?rs?"),
    "Pleural effusion": (
        r"(?:hydro)?(?:pleural )?effusions?", r"pleural (?:space )?fluid", r"ha?emothorax", r"hydro(?:pneumo)?thorax",
        rf"fluid{_gap(4)} (?:pleural space|fissures?)",
    ),
    "Pleural thickening": (
        r"pleural(?: (?!no\b|without\b)[a-z,]+){0,3} (?:thicken\w+|scar\w*|plaques?|cap|capping|fibrosis)",
        r"(?:thicken\w+|scar\w*|plaques?)(?: (?:of|in|along|the|minor|major|right|left|apical|both)){0,5} pleura",
        r"(?:thicken\w+|scar\w*)(?: (?:of|in|along|the|minor|major|right|left|both)){0,5} fissures?",
        r"(?:bi)?apical (?:pleural )?(?:cap|capping|thickening)", r"fibrothorax", r"pleuro ?parenchymal",
    ),
    "Pneumothorax": (r"(?:hydro)?pneumo ?thora(?:x|ces|xes)", r"ptx", r"pleural air"),
    "Pulmonary fibrosis": (
        r"fibros(?:is|es)", r"fibrotic", r"fibro ?(?:nodular|calcific)", r"scar(?:s|red|ring)?", r"honey ?comb(?:ing)?",
        r"architectural distortion",
    ),
    "Rib fracture": (rf"{_RIB}{_BONE_GAP} {_FRACTURE}", rf"{_FRACTURE}{_BONE_GAP} {_RIB}"),
    "Other lesion": (
        r"(?:hiatal |hiatus |diaphragmatic |bochdalek |morgagni )?hernia\w*", _DEVICE, r"pneumomediastinum",
        r"pneumoperitoneum", r"free (?!of |from )(?:[a-z]+ ){0,2}air",
        r"(?:subcutaneous|soft tissue|chest wall) (?:emphysema|air|gas)",
        r"(?:lymph)?adenopathy", r"bronchiecta\w+",
        rf"(?:elevat\w+|eventration){_gap(4, stop='no|without|but')} (?:hemi ?)?diaphragm",
        r"(?:hemi ?)?diaphragm(?: (?:is|remains|again|are|mildly|slightly|chronically)){0,3} elevat\w+",
        r"pericardial effusion",
        r"(?:lytic|sclerotic|blastic) (?:[a-z]+ )?(?:lesions?|metasta\w+)",
    ),
}  # fmt: skip

# The same words with another meaning: a match inside one of these spans is no mention of the class.
_VESSEL = any_of("""
    aort\\w* vascular vessels? athero\\w+ arter(?:y|ies|ial|io\\w+) coronary valv\\w+ annul\\w+ cartilag\\w+ costochondral
    chondral tend\\w+ ligament\\w* thyroid breast bronchial tracheal? tracheobronchial disc spin\\w+ shoulder rotator
""")
_EXPLAINED = (
    r"nodular|mass like|masslike|reticul\w+|reticulonodular|interstitial|consolidat\w+|cavitary|fibrotic|atelectatic|"
    r"calcif\w+|infiltrat\w+|cystic|scar like|emphysematous"
)
BLOCKED: Mapping[str, tuple[str, ...]] = {
    "Calcification": (
        rf"{_VESSEL}(?: [a-z,]+){{0,6}} calcif\w+(?! (?:[a-z]+ )?(?:granulom|nodul|lymph|node|hilar))",
        rf"calcif\w+(?: (?!granulom|nodul|lymph|node|hilar|there)[a-z]+){{0,6}} {_VESSEL}",
    ),
    "Edema": (r"(?:soft tissue|peripheral|pedal|leg|subcutaneous|marrow) o?edema",),
    "Emphysema": (r"(?:subcutaneous|soft tissue|chest wall|surgical|mediastinal|interstitial) emphysema",),
    "ILD": (r"interstitial (?:o?edema|pulmonary o?edema)", r"[a-z]+ (?:[a-z]+ ){0,2}interstitial (?:pulmonary )?o?edema"),
    "Lung Opacity": (
        rf"(?:{_EXPLAINED})(?: (?:type|appearing|lung|pulmonary|airspace|air space))? (?:opacit\w+|densit\w+)",
        r"(?:bone|bony|osseous|mineral|metallic|metal|contrast|fat|decreased) densit\w+", r"perihilar haze",
        r"hazy (?=opaci|densit)", r"opaci\w+ (?=densit)", r"ground glass (?=opaci|densit)",
    ),
    "Lung cavity": (r"(?:pleural|thoracic|chest|abdominal|peritoneal|glenoid|thorax) cavit\w+",),
    "Lung cyst": (
        r"cystic (?:fibrosis|bronchiectasis)", r"(?:renal|kidney|hepatic|liver|bone|breast|subchondral|sebaceous) cysts?",
    ),
    "Nodule/Mass": (r"reticul\w+ nodular", r"body mass", r"mass effect", r"bone mass", r"nodular contour"),
    "Pleural effusion": (r"(?:pericardial|joint|knee) effusions?",),
    "Pulmonary fibrosis": (
        r"cystic fibrosis", r"(?:surgical|skin|incision\w*|sternotomy|chest wall) scar\w*",
        r"pleural (?:scar\w*|fibrosis)", r"interstitial (?:fibrosis|scarring)",
    ),
    "Mediastinal shift": (r"midline (?:sternotomy|sternal|trachea|catheter|wires?)(?: [a-z]+){0,6}",),
    "Atelectasis": (r"(?:vertebra\w*|spin\w+|body) collapse",),
}  # fmt: skip

# Statements that a class is absent without naming it in the negative.
_FINE = r"(?:normal|unremarkable|within (?:the )?(?:upper )?(?:normal )?limits|upper limits? of normal|top normal)"
NORMAL: Mapping[str, tuple[str, ...]] = {
    "Cardiomegaly": (
        rf"{_HEART}(?: (?!enlarg|but|{_FINE})[a-z]+){{0,7}} {_FINE}(?! to)",
        rf"{_START}{_HEART} , {_FINE}",
        rf"{_FINE}(?: (?:appearing|sized?|cardiac|in|of|the)){{0,3}} {_HEART}",
    ),
    "Aortic enlargement": (
        rf"{_AORTA}(?: (?!but)[a-z]+){{0,5}} {_FINE}",
        rf"{_START}{_AORTA} , {_FINE}",
        rf"{_FINE}(?: (?:thoracic|caliber|of|the)){{0,3}} {_AORTA}",
    ),
    "Enlarged PA": (rf"{_PULMONARY_ARTERY}(?: (?!but)[a-z]+){{0,4}} {_FINE}",),
    "Mediastinal shift": (
        r"trachea(?: (?:and|mediastinum|is|are|remains|appears|in)){0,5} (?:midline|central)", r"midline trachea",
        rf"{_START}(?:trachea|mediastinum) , (?:midline|central)",
        r"mediastinum(?: (?:is|remains|appears)){0,2} (?:midline|central)",
    ),
    "Pleural effusion": (
        rf"{_ANGLE}(?: [a-z]+){{0,3}} (?:sharp|clear|preserved|well defined)", rf"(?:sharp|clear) {_ANGLE}",
        rf"{_START}{_ANGLE} , (?:sharp|clear)",
    ),
}  # fmt: skip

# Signs that stand for a class with doubt, where the sentence does not name the class itself.
SIGNS: Mapping[str, tuple[str, ...]] = {
    "Pleural effusion": (
        rf"blunt\w*{_gap(5)} {_ANGLE}", rf"{_ANGLE}(?: [a-z]+){{0,4}} blunt\w*",
        rf"(?:obscured|obscuring){_gap(4)} {_ANGLE}",
    ),
}  # fmt: skip

# Spelled as in reports; a longer unknown word one slip away from one of these is read as it.
SPELLINGS: tuple[str, ...] = (
    "pneumothorax", "pneumothoraces", "effusion", "effusions", "pleural", "consolidation", "consolidations", "atelectasis",
    "atelectatic", "cardiomegaly", "infiltrate", "infiltrates", "infiltration", "opacity", "opacities", "opacification",
    "emphysema", "emphysematous", "interstitial", "calcified", "calcification", "calcifications", "granuloma", "granulomas",
    "granulomatous", "enlarged", "enlargement", "silhouette", "cardiomediastinal", "mediastinum", "mediastinal", "tortuous",
    "fracture", "fractures", "clavicle", "thickening", "fibrosis", "scarring", "reticular", "cavitary", "costophrenic",
    "pulmonary", "bilateral", "without", "evidence", "possible", "pacemaker", "hernia", "nodular", "nodules",
)  # fmt: skip
# Words that r2gen text glues together where the report had a slash between them ("nodulemass").
GLUED: frozenset[str] = frozenset(SPELLINGS) | {
    "nodule", "mass", "scar", "airspace", "ectasia", "ectatic", "tortuosity", "pacer", "defibrillator", "icd", "aicd",
    "parenchymal", "fibrotic", "edema", "mildly", "subsegmental", "crowding", "retrocrural", "ill", "thickened", "calcific",
    "hiatal", "disease", "process", "congestion",
}  # fmt: skip
# Correct words that are one slip away from a spelling above.
NOT_SLIPS: frozenset[str] = frozenset(("enlarge", "enlarges", "fractured", "cavity", "nodule", "effusive", "infiltrated"))
