"""Words for the 18 abnormalities of chest CT in English reports: data for ct_mentions.py, no logic.

Patterns are searched in a normalised sentence (mention_text.py), between spaces. Own work; conventions follow what the
labels of
CT-RATE count (docs/explanation/ct-text.md): a lymph node with a size counts as lymphadenopathy, any atheroma as
calcification.
"""

from collections.abc import Mapping

from d2rnet.findings.mention_cues import any_of

# Words that a pattern with a gap never crosses: they open another statement.
_STOP = (
    r"no|not|without|but|there|normal|natural|which|nodul\w+|hernia|effusions?|diameters?|fractur\w+|stones?|lymph|"
    r"consolidation\w*|atelecta\w+|emphysem\w+|osteophyt\w+|thrombus|embol\w+"
)


def _gap(most: int, *, stop: str = _STOP) -> str:
    """As few as will do of up to ``most`` words or commas, none of them one of ``stop``."""
    return rf"(?: (?!(?:{stop})\b)(?:[a-z0-9.]+|,)){{0,{most}}}?"


_CALCIFIED = r"(?:calcif\w+|calcareous|calcium|athero\w+|plaques?)"
_ARTERY = (
    r"(?:aort(?:a|as|ic)(?! (?:pulmonary|valve|annul|annulus|window))|aortoiliac|supra ?aortic|(?<!coronary )"
    r"(?<!pulmonary )(?<!circumflex )(?<!descending )arter(?:y|ies|ial)|"
    r"iliacs?|carotids?|subclavian|brachiocephalic|celiac|mesenteric|vascular(?: structures?| walls?)?|vessels?|arch)"
)
_CORONARY = r"(?:coronary|coronaries|lad|rca|circumflex|left anterior descending|lmca|cx)"
_HEART = (
    r"(?:hearts?|cardiac|cardio ?thoracic|cardio ?mediastinal|ctr|cardiac index)"
    r"(?: (?:contours?|sizes?|dimensions?|diameters?|silhouette|ratio|index|chambers?|cavit(?:y|ies)|,|and|is|are|was|"
    r"were|has|have|volume)){0,6}"
)
_BIG = (
    r"(?:enlarged?|enlargement|increased?|increases|large|larger|big|bigger|wide|wider|above normal|above the normal|"
    r"over the normal|"
    r"more than normal|greater than normal|at the upper limit|dilated|prominent)"
)
_THICK = (
    r"(?:thick(?:en\w*|ness(?:es)? (?:increases?|increased))|thicknesses|increase in (?:wall )?thickness|cuffing|"
    r"prominen\w+)"
)
_NODE = (
    r"(?:lymph ?nodes?|lymphnodes?|nodes|"
    r"(?:paratracheal|subcarinal|hilar|prevascular|axillary|mediastinal|aortopulmonary|paraesophageal|supraclavicular) node)"
)
_MARK_OF_NODE = (
    r"(?:enlarg\w+|patholog\w+|increas\w+|conglomera\w+|multiple|numerous|many|several|few|large|short|long|sizes?|"
    r"sized|diameters?|mm|cm|millimetric|"
    r"[0-9.]+(?:mm|cm)|[0-9.]+x[0-9.]+(?:mm|cm)?|metasta\w+|reactive|necro\w+|prominent|suspicious|stable|largest)"
)
_LUNG_PLACE = r"(?:lungs?|lob(?:e|es|ar)|lingula\w*|segments?|parenchym\w+|apical|apex|basal|subpleural)"

# Fluid that lies elsewhere than in the pleura: "the pericardium contains no effusion".
_PERICARDIAL_FLUID = (
    r"pericardi(?:um|al (?:space|sac|cavity))(?: (?!pleura|pleural|hemithora\w+)[a-z]+){0,3} "
    r"(?:no|any|free of|free from|without)(?: [a-z]+){0,2} (?:effusions?|fluid|liquid)"
)
# The artery is normal: the calcification in front of it was of another.
_FINE_ARTERY = (
    r"(?! (?:[a-z]+ ){0,2}(?:is|are|was|were|has|have) (?:of |a |an |within |in )?"
    r"(?:normal|natural|usual|regular|[0-9]))"
)

# Tissue whose density is none of the lung.
_OTHER_TISSUE = (
    r"(?:skin|subcutaneous|cutaneous|breasts?|adipose|fatty|fat|perinephric|perirenal|mesenter\w+|muscles?|retroperiton\w+|"
    r"omentum|kidneys?|soft tissues?)"
)

PATTERNS: Mapping[str, tuple[str, ...]] = {
    "Medical material": (
        any_of("""
            catheters? cvc stents? stented pacemakers? pace_makers? pacers? icd aicd defibrillators? electrodes? prosthe\\w+
            implants?
            (?:surgical_|metallic_|suture_|operation_|operational_|embolization_|embolisation_)?clips? cannula\\w* coils?
            (?:sternotomy|surgical|suture|fixation|metallic|operation|operational|operative|cerclage|osteosynthesis|embolization|stabilization|foreign|medical)_(?:wires?|materials?|sutures?|devices?|staples?)
            sutures? sternotom\\w+ sternal_wires? wires? cerclage tracheostom\\w+
            (?:endotracheal|nasogastric|feeding|chest|thorax|thoracic|thoracostomy|tracheal|intubation|drainage|nephrostomy|gastrostomy)_tubes?
            intubat\\w+ nephrostom\\w+ gastrostomy_tubes? peg drains? pigtail double_j
            port_(?:chamber|catheter|reservoir|system)s? screws? plates?_and_screws? rods?
            vena_cava_filter ivc_filter grafts?_material bioprosthe\\w+ mechanical_(?:aortic_|mitral_)?valves?
            (?:aortic|mitral|tricuspid)_valve_(?:replacement|prosthesis)
            valve_replacement tavi stent_grafts? endografts? fixators? fixators? instrumentation silicone pacing_leads?
            pacemaker_leads? leads? staple_lines? metallic_(?:densit\\w+|artifacts?|artefacts?|materials?) picc hickman
            vertebroplast\\w+ kyphoplast\\w+ bone_cement hardware loop_recorder annuloplasty
        """),
    ),
    "Arterial wall calcification": (
        rf"{_CALCIFIED}{_gap(9)} {_ARTERY}{_FINE_ARTERY}",
        rf"{_ARTERY}{_gap(9)} {_CALCIFIED}",
        rf"athero\w+(?! (?:plaques? )?{_gap(6)}{_CORONARY})",
    ),
    "Cardiomegaly": (
        r"cardiomegaly", r"megacor",
        rf"{_HEART}(?: (?:slightly|mildly|minimally|moderately|markedly|significantly|mild|slight|minimal|moderate|"
        rf"marked|also|globally|its|overall|in|size|are|is|was|to|be|appears?|seen|observed|evaluated|as)){{0,5}} {_BIG}",
        rf"(?:{_BIG}|increase)(?: (?:in|of|the|size|sizes|dimensions?|overall|global|left|to)){{0,5}} (?:heart|cardiac|"
        rf"cardio ?thoracic)(?! (?:failure|valve|tamponade))",
    ),
    "Pericardial effusion": (
        rf"pericardi(?:al|um|ac){_gap(5, stop=_STOP.replace('effusions?|', '') + '|pleura|pleural')} (?:effusions?|fluid)",
        rf"(?:effusions?|fluid){_gap(5, stop=_STOP + '|pleural|pleura')} pericardi(?:al|um)(?: (?:space|area|cavity|"
        rf"region|distance|recess\w*))?",
        r"pleural? (?:and|or|,|and or|nor) pericardial (?:effusions?|fluid)",
        r"(?:effusions?|fluid|liquid)(?: [a-z]+){0,3} (?:surround\w*|around|encircl\w*) the heart",
        r"pericardial (?:and|or|nor|,|and or) pleural (?:effusions?|fluid)",
        _PERICARDIAL_FLUID,
        r"pleuropericardial effusions?", r"hemopericardium", r"pericardial (?:thickening )?effusions?",
    ),
    "Coronary artery wall calcification": (
        rf"{_CALCIFIED}{_gap(12)} {_CORONARY}{_FINE_ARTERY}",
        rf"{_CORONARY}{_gap(8)} {_CALCIFIED}",
        r"coronary (?:artery )?(?:disease|sclerosis)",
    ),
    "Hiatal hernia": (
        r"(?:hiatal|hiatus|sliding|paraesophageal|axial|mixed)(?: (?:type|esophageal|hiatal|hiatus|gastric)){0,3} hernia\w*",
        r"hernia\w*(?: [a-z]+){0,4} (?:hiatus|hiatal|hiatus esophagus)",
        r"(?:stomach|gastric|gastroesophageal)(?: [a-z]+){0,6} hernia\w+",
        r"hernia\w+(?: [a-z]+){0,4} (?:stomach|gastric fundus)", r"hh", r"hiatal herni\w+", r"hiatus herni\w+",
    ),
    "Lymphadenopathy": (
        r"(?:[a-z]*lymph)?adenopath\w+", r"lymph ?adenomegal\w+", r"adenomegal\w+", r"laps?",
        rf"{_NODE}(?=(?: (?!hernia|nodul)(?:[a-z0-9.]+|,)){{0,24}} {_MARK_OF_NODE} )",
        rf"{_MARK_OF_NODE}(?: (?!there|no|not|mass|nodules?\b)(?:[a-z0-9.]+|,)){{0,8}} {_NODE}",
        rf"{_NODE} (?:is|are|was|were) (?:also )?(?:observed|seen|present|noted|detected|selected|available|found)",
        rf"there (?:is|are) (?:also )?(?:a |some )?(?:[a-z]+ ){{0,3}}{_NODE}",
    ),
    "Emphysema": (r"(?:[a-z]*emphysem|amphysem|amphoesem|emphisem)\w*", r"bullae?", r"bullous", r"blebs?", r"bulla\w*"),
    "Atelectasis": (
        r"(?:sub)?atelec\w+",
        r"atele\w+",
        r"(?:lobe|lobar|lung|segment|segmental) (?:is |are |was )?collapse\w*",
        r"collapsed? (?:of )?(?:the )?(?:[a-z]+ ){0,4}(?:lungs?|lobes?|lingula|segments?)",
        r"collapse consolidation",
    ),
    "Lung nodule": (r"(?:micro|macro)?nodul\w+", r"granulomas?"),
    "Lung opacity": (
        r"opaci\w+", r"(?:ground|frosted|frost) ?glass\w*", r"(?:glass) (?:densit\w+|appearance)",
        r"(?:increas\w+|increments?|areas?)(?: (?:of|in|the|areas?|increased|parenchymal|lung|patchy)){0,4} "
        r"(?:densit\w+)",
        r"densit(?:y|ies)(?: (?:area|areas))?(?: (?:increases?|increments?|increased|areas?|differences))?",
        r"infiltrat\w+", r"pneumonic", r"air ?space disease", r"crazy paving", r"haz(?:y|iness)",
    ),
    "Pulmonary fibrotic sequela": (
        r"sequela\w*",
        r"sequel(?:s|ar|ae)?",
        r"fibro ?(?:sis|tic|ses|sclerotic|nodular|calcific|cicatricial|atelec\w+)",
        r"fibro ?\w*atel\w+",
        r"scar(?:s|ring|red)?",
        r"pleur(?:o|a|al) ?parenchymal(?: (?:linear|fibrotic|band|band like|sequelae|density|densities|bands|"
        r"recessions?|changes|thickening)){0,3}",
        r"parenchymal bands?",
        r"honey ?comb\w*",
        r"architectural distortion", r"cicatri\w+", r"fibrous bands?", r"fibrotic\w*", r"reticul\w+ (?:fibro\w+)",
    ),
    "Pleural effusion": (
        r"pleural(?= (?:and|or|nor|,) pericardial (?:effusions?|fluid) )",
        r"(?:pleural|parapneumonic|hydro ?pneumothorax)(?: (?:[a-z]+|,)){0,2} (?:effusions?|fluid)",
        r"pleural (?:space )?(?:free )?(?:fluid|liquid)",
        r"effusions?(?! (?:in|around|surrounding|of) (?:the )?(?:pericard\w+|heart|perihepatic|abdom\w+|joint|both "
        r"kidneys))",
        r"hydro(?:pneumo)?thora(?:x|ces)",
        r"h(?:a)?emothorax",
        r"empyema\w*",
        r"chylothorax",
        r"(?:fluid|liquid)(?: [a-z]+){0,7} (?:pleural (?:spaces?|cavity|cavities|leaves)|hemithora\w+|fissures?)",
    ),
    "Mosaic attenuation pattern": (
        r"mosaic\w*(?: (?:attenuation|perfusion|pattern|density|densities|appearance|defect|areas))*",
    ),
    "Peribronchial thickening": (
        rf"(?:peri ?bronchi\w*|bronchial walls?|bronchus walls?|bronch(?:i|us|ial)){_gap(4)} {_THICK}",
        rf"{_THICK}(?! and ){_gap(5)} (?:peri ?bronchi\w*|bronch(?:i|us|ial|ioles)(?: walls?)?)",
        rf"wall{_gap(2)} {_THICK}{_gap(3)} bronch\w+",
    ),
    "Consolidation": (r"consoli\w+",),
    "Bronchiectasis": (
        r"(?:[a-z]*bronchi?o?[ei]?[ck]t\w+)",
        r"bronchiecta\w+",
        r"(?:dilat\w+|enlarge\w+|ectasia|ectatic)(?: (?:of|in|the|segmental|both|lobar|subsegmental|tractional)){0,4} "
        r"bronch(?:i|us|ial|ioles)(?: (?:structures?|lumens?))?",
        r"bronch(?:i|us|ial|ioles)(?: (?:structures?|lumens?|is|are|appear|slightly|minimally)){0,3} (?:dilat\w+|ectatic)",
    ),
    "Interlobular septal thickening": (
        rf"(?:inter ?lobular|inter ?lobar|septal|septa|septum){_gap(6)} {_THICK}",
        rf"{_THICK}(?! and ){_gap(5)} (?:inter ?lobular|septa|septal|septum)",
        r"crazy paving\w*",
        r"interlobular septal\w* prominen\w+",
        r"kerley(?: b)?(?: lines?)?",
    ),
}  # fmt: skip

_FINE_NODES = (
    rf"{_NODE}(?: (?!is |are |was |were |not )[a-z]+){{0,6}} (?:is|are|was|were) (?:not (?:pathologically |significantly )?"
    r"(?:enlarged|patholog\w+|increased|prominent|suspicious)|(?:of )?normal(?: (?:in )?sized?| size)?)"
)

# The same words with another meaning: a match that touches one of these spans is no mention.
BLOCKED: Mapping[str, tuple[str, ...]] = {
    "Medical material": (
        r"contrast (?:material|agent|media|medium)\w*",
        r"leads? to",
        r"leading",
        r"catheter angiograph\w+",
        r"implant(?:ed|s)? metasta\w+",
        r"(?:removed|withdrawn) (?:catheter|tube)s?",
        r"(?:catheter|tube|drain|stent|wires?)s? (?:has|have|had) been (?:removed|withdrawn)",
        r"(?:catheter|tube|drain|stent|wires?)s? (?:is|are|was|were) (?:removed|withdrawn|pulled)",
        r"removal of (?:the )?(?:[a-z]+ ){0,3}(?:catheter|tube|drain|stent|pacemaker)s?",
        r"peritoneal implants?", r"pleural implants?",
    ),
    "Arterial wall calcification": (
        r"(?:pleural|aortic valve|valve|mitral|annul\w+|annular|pericardi\w+|lymph nodes?|nodul\w+|tracheo\w+|tracheal|"
        r"thyroid|liver|granulom\w+|disc|ligament\w*)(?: [a-z]+){0,2} (?:calcif\w+|plaques?)",
        r"(?:calcif\w+)(?: [a-z]+){0,2} (?:pleural|valve|valves|annulus|lymph nodes?|lymph|nodul\w+|granulom\w+|"
        r"pericard\w+|ligament\w*)(?: [a-z]+){0,4}",
        r"(?:para ?aortic|aorto ?pulmonary|aortico ?pulmonary)",
    ),
    "Cardiomegaly": (
        r"(?:paracardiac|epicardial|pericardial|cardiac) (?:fat|lymph|effusion)(?: [a-z]+){0,4}",
        r"cardiac (?:border|apex)",
    ),
    "Emphysema": (
        r"(?:subcutaneous|soft tissue|surgical|mediastinal|chest wall|skin) emphysem\w*",
        r"emphysem\w+ (?:in|of) the (?:subcutaneous|soft tissue|chest wall|skin|mediastin)\w*(?: [a-z]+){0,2}",
        r"emphysem\w+ pyelo\w+",
        r"emphysem\w+ chole\w+",
    ),
    "Atelectasis": (r"fibro atelec\w+", r"(?:vertebra\w*|corpus|tracheal) collapse"),
    "Lung nodule": (
        r"nodul\w+ (?:consolidat\w+|contour\w*)",
        r"consolidat\w+ nodul\w+",
        r"schmorls? nodul\w+",
        r"nodul\w+ (?:of the )?schmorl",
    ),
    "Lung opacity": (
        r"(?:sequel\w*|fibro\w+|pleur(?:o|a|al) ?parenchymal|atelec\w+|nodular|emphysem\w*|consolidat\w+|"
        r"contrast|opaque|calcific|calcified|metallic|metal|bone|fat|fluid|air|oil|soft tissue|vertebral|liver|hepatic|"
        r"parenchyma|spleen|low|negative|water)(?: (?:linear|band|like|style|type|tissue|corpus|parenchyma|parenchymal|"
        r"area|areas|and|sequel\w*)){0,3} (?:densit\w+|opaci\w+)(?: (?:increases?|increments?|areas?))?",
        r"densit\w+ (?:increases? )?(?:and alignments?|evaluated in favor of (?:sequel\w*|atelec\w+)|compatible with "
        r"(?:sequel\w*|atelec\w+|adiposity)|is normal|are normal|are natural|is natural|of the (?:liver|spleen|"
        r"pancreas|bone)(?: [a-z]+)?)",
        r"(?:alignments?|heights?|contours?|sizes?) (?:, )?(?:and )?(?:parenchyma )?densit\w+",
        r"(?:decreas\w+|low)(?: (?:in|of|the|bone|liver|diffuse|diffusely))* densit\w+",
        r"densit\w+ (?:is |are |was )?(?:diffusely |minimally |slightly )?(?:decreas\w+|reduced)",
        r"(?:opaque|opacifi\w+) (?:material|contrast)",
        r"(?:arter\w+|veins?|vessels?|aorta|vascular structures?|o?esophagus|bowel\w*)(?: [a-z]+){0,4} opacif\w+",
        r"(?:fat|fatty) infiltrat\w+",
        r"infiltrat\w+ (?:of|in|into|to) the (?:fat|adjacent|surrounding|muscle|chest wall|bone|liver|pleura|"
        r"mediastin)\w*(?: [a-z]+){0,2}",
        r"(?:hu|hounsfield) (?:unit )?densit\w+",
        r"densit\w+ (?:value|measure)\w*",
        r"mosaic densit\w+",
        rf"(?:increas\w+ (?:in|of) (?:the )?)?densit\w+(?: (?:increas\w+|increments?|areas?))? "
        r"(?:(?:is|are|was|were|seen|observed|noted|present|also) ){0,3}"
        rf"(?:in|of|under|within)(?: (?!lungs?|lob)[a-z]+){{0,3}} {_OTHER_TISSUE}",
        rf"{_OTHER_TISSUE}(?: (?!lungs?|lob)[a-z]+){{0,4}} densit\w+",
        r"(?:areas? of (?:increased )?)?densit\w+(?: (?!ground|glass|with|and)[a-z]+){0,8} "
        r"(?:in favor of|compatible with|consistent with|secondary to|due to) (?:[a-z]+ ){0,3}"
        r"(?:sequel\w*|atelec\w+|fibro\w+)",
        r"(?:parenchymal?|gland|vertebral|vertebra|corpus) densit\w+",
    ),
    "Pulmonary fibrotic sequela": (
        r"sequel\w*(?: [a-z]+){0,2} (?:fractur\w+|rib|vertebra\w*|hemangioma|infarct\w*|calcific foc\w+ in the "
        r"(?:liver|spleen))",
        r"(?:old|healed) (?:fractur\w+) sequel\w*",
        r"(?:fractur\w+|surgery|operation|trauma|surgical|sternotomy|mastectomy)(?: [a-z]+){0,2} (?:sequel\w*|scars?)",
        r"cystic fibrosis",
        r"(?:incision\w*|skin|surgical) scars?",
        r"fibro ?(?:glandular|lipoma|adenoma)",
        r"myelofibrosis",
        r"periportal fibrosis",
        r"(?:liver|renal|kidney|cortical|hepatic) (?:fibrosis|scars?)",
    ),
    "Pleural effusion": (
        r"(?:pericardial|pericardiac|perihepatic|perisplenic|pelvic|abdominal|intraabdominal|intra abdominal|joint|"
        r"perirenal|pericholecystic)(?: (?!and|or|nor|pleural)[a-z]+){0,2} (?:effusions?|fluid)",
        _PERICARDIAL_FLUID,
        r"(?:effusions?|fluid|liquid)(?: (?!pleura|pleural|and|or|nor|hemithora\w+)[a-z]+){0,5} pericardi(?:al|um)"
        r"(?! (?:and|or|nor|,|and or) pleural?)",
        r"(?:joints?|abdomen|pelvis|peritoneum|mediastinum)(?: (?:is|are|has|have|shows?|contains?|holds?))"
        r"(?: (?!pleural|pleura)[a-z]+){0,3} (?:effusions?|fluid)",
        r"free (?:effusion|fluid)(?: [a-z]+){0,3} (?:kidneys?|liver|spleen|abdom\w+|pelvis|pelvic)(?: [a-z]+)?",
        r"pericardial (?:thickening )?effusions?",
    ),
    "Peribronchial thickening": (
        r"(?:tracheal|esophag\w+|pleural|septal) (?:wall )?thick\w+",
        r"bronchovascular prominen\w+",
    ),
    "Hiatal hernia": (
        r"(?:bochdalek|morgagni|inguinal|umbilical|incisional|disc|disk|ventral|epigastric|abdominal wall) hernia\w*",
    ),
    "Lymphadenopathy": (
        r"calcif\w+(?: [a-z]+){0,3} (?:lymph ?nodes?)",
        r"lymph ?nodes? (?:dissection|sampling|biopsy|station|transfer)\w*",
        _FINE_NODES,
    ),
}  # fmt: skip

# Statements that an abnormality is absent without naming it in the negative.
_FINE = (
    r"(?:normal|natural|unremarkable|usual|within (?:the )?(?:normal )?(?:limits|range|ranges|natural limits)|within "
    r"(?:the )?normal (?:limits|range)|preserved|physiological|ordinary)"
)
NORMAL: Mapping[str, tuple[str, ...]] = {
    "Lymphadenopathy": (_FINE_NODES,),
    "Cardiomegaly": (
        rf"(?:heart|cardiac|ctr|cardio ?thoracic)(?: (?!enlarg|increas|{_FINE})(?:[a-z]+|,)){{0,8}} {_FINE}(?! to)",
        rf"{_FINE}(?: (?:sized?|appearing)){{0,2}} heart",
    ),
}  # fmt: skip

# What makes an abnormality possible where it is not named.
SIGNS: Mapping[str, tuple[str, ...]] = {
    "Cardiomegaly": (r"heart(?: [a-z]+){0,4} upper limits?(?: of normal)?",),
}  # fmt: skip

# Letters of which each sentence that names the abnormality holds some: the others are not searched for it.
STEMS: Mapping[str, tuple[str, ...]] = {
    "Arterial wall calcification": ("calc", "athero", "plaque"),
    "Cardiomegaly": ("heart", "card", "ctr", "cor "),
    "Pericardial effusion": ("pericard", "the heart"),
    "Coronary artery wall calcification": (
        "coronar",
        " lad ",
        " rca ",
        "circumflex",
        "anterior descending",
        " lmca ",
        " cx ",
    ),
    "Hiatal hernia": ("herni", " hh "),
    "Lymphadenopathy": ("lymph", " lap", "aden", " node"),
    "Emphysema": ("mphys", "mphis", "mphoes", "bull", "bleb"),
    "Atelectasis": ("atele", "collapse"),
    "Lung nodule": ("nodul", "granuloma"),
    "Pulmonary fibrotic sequela": ("sequel", "fibro", "scar", "parenchymal", "honey", "distortion", "cicatri"),
    "Pleural effusion": ("effusion", "fluid", "liquid", "thora", "empyem"),
    "Mosaic attenuation pattern": ("mosaic",),
    "Peribronchial thickening": ("bronch",),
    "Consolidation": ("consoli",),
    "Bronchiectasis": ("bronch",),
    "Interlobular septal thickening": ("interlob", "inter lob", "sept", "crazy", "kerley"),
}
