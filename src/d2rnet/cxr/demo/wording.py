"""Wording of the demo cohort's reports: sentence templates of each finding, normal sentences of each structure.

A template may hold ``{side}``, ``{zone}`` and ``{size}`` (capitalised: ``{Side}``, ``{Size}``). "Nodule" and "Mass" share
a class, as do "Device" and "Hernia". Own wording, in the manner of chest radiograph reports; read by demo_reports.py.
"""

FINDING_TEMPLATES: dict[str, tuple[str, ...]] = {
    "Aortic enlargement": (
        "The aortic knob is enlarged, with {size} dilation.",
        "There is {size} enlargement of the thoracic aorta.",
        "The aorta is dilated and tortuous, with calcified walls.",
        "{Size} aneurysmal dilatation of the aortic arch is unchanged.",
    ),
    "Atelectasis": (
        "There is {size} linear atelectasis in the {side} lower lung.",
        "Plate-like atelectasis is seen at the {side} base, {size} in degree.",
        "{Size} {side} lower lobe atelectasis is present.",
        "Streaky {side} basilar densities reflect {size} atelectasis.",
    ),
    "Calcification": (
        "A cluster of calcifications is seen in the {side} {zone} lung.",
        "There is a {size} group of calcified granulomas in the {side} {zone} zone.",
        "Calcified granulomas project over the {side} {zone} lung.",
        "Punctate calcifications in the {side} {zone} lung suggest prior granulomatous disease.",
    ),
    "Cardiomegaly": (
        "There is {size} cardiomegaly.",
        "The heart is enlarged, with {size} cardiomegaly.",
        "The cardiac silhouette is enlarged.",
        "{Size} enlargement of the cardiac silhouette persists.",
    ),
    "Clavicle fracture": (
        "There is a displaced fracture of the {side} clavicle.",
        "A {side} clavicle fracture is noted.",
        "The mid {side} clavicle is fractured with inferior displacement.",
        "Acute fracture through the shaft of the {side} clavicle is demonstrated.",
    ),
    "Consolidation": (
        "There is {size} consolidation in the {side} {zone} lobe with air bronchograms.",
        "A {size} {side} {zone} lobe consolidation is present.",
        "Dense consolidation is seen in the {side} {zone} lobe.",
        "{Size} {side} {zone} lobe consolidation is concerning for pneumonia.",
    ),
    "Edema": (
        "There is {size} pulmonary edema with bilateral perihilar haze.",
        "Bilateral perihilar opacities are consistent with {size} pulmonary edema.",
        "Bilateral pulmonary edema is present.",
        "Vascular congestion and {size} alveolar edema are seen bilaterally.",
    ),
    "Emphysema": (
        "The lungs are hyperinflated with flattened diaphragms, consistent with emphysema.",
        "There is {size} bilateral emphysema.",
        "Both lungs are hyperlucent, consistent with {size} emphysema.",
        "Increased lung volumes are compatible with {size} chronic obstructive disease and emphysema.",
    ),
    "Enlarged PA": (
        "The main pulmonary artery is enlarged.",
        "There is {size} enlargement of the pulmonary artery.",
        "The left hilum is prominent, consistent with an enlarged pulmonary artery.",
        "{Size} prominence of the pulmonary artery may indicate pulmonary hypertension.",
    ),
    "ILD": (
        "There are bilateral basilar reticular opacities, consistent with interstitial lung disease.",
        "{Size} interstitial lung disease is seen at both bases.",
        "{Size} reticular markings at both bases suggest interstitial lung disease.",
        "Diffuse interstitial abnormality involves both lower lungs.",
    ),
    "Infiltration": (
        "There is a {size} patchy infiltrate in the {side} {zone} lung.",
        "Patchy infiltration is seen in the {side} {zone} zone.",
        "A {size} ill-defined {side} {zone} lung infiltrate is noted.",
        "Multifocal patchy infiltrates occupy the {side} {zone} zone.",
    ),
    "Lung Opacity": (
        "There is a {size} hazy opacity in the {side} {zone} lung.",
        "A hazy {side} {zone} lung opacity is present.",
        "{Size} ground-glass opacity is seen in the {side} {zone} zone.",
        "Increased opacity in the {side} {zone} lung is nonspecific.",
    ),
    "Lung cavity": (
        "There is a {size} cavity with an air-fluid level in the {side} {zone} lung.",
        "A thick-walled cavity is seen in the {side} {zone} zone.",
        "A {size} cavitary lesion is present in the {side} {zone} lung.",
        "{Size} {side} {zone} lung cavity could represent an abscess.",
    ),
    "Lung cyst": (
        "There is a {size} thin-walled cyst in the {side} {zone} lung.",
        "A {side} {zone} lung cyst is noted.",
        "A {size} air cyst is seen in the {side} {zone} zone.",
        "Lucency with a thin rim in the {side} {zone} lung is a cyst.",
    ),
    "Mediastinal shift": (
        "The mediastinum is shifted to the {side}.",
        "There is {size} mediastinal shift to the {side}.",
        "The trachea and mediastinum are displaced to the {side}.",
        "{Size} deviation of the trachea to the {side} is seen.",
    ),
    "Nodule": (
        "There is a {size} nodule in the {side} {zone} lung.",
        "A {size} round {side} {zone} lung nodule is noted.",
        "A solitary nodule is seen in the {side} {zone} zone.",
        "Well-circumscribed {side} {zone} lung nodule warrants follow-up.",
    ),
    "Mass": (
        "There is a {size} mass in the {side} {zone} lung.",
        "A {size} lobulated {side} {zone} lung mass is noted.",
        "A mass is seen in the {side} {zone} zone.",
        "{Size} {side} {zone} lung mass is suspicious for malignancy.",
    ),
    "Pleural effusion": (
        "There is a {size} {side} pleural effusion.",
        "A {size} {side} pleural effusion is present.",
        "{Size} {side} effusion is seen with blunting of the costophrenic angle.",
        "Fluid layers at the {side} base, consistent with a {size} pleural effusion.",
    ),
    "Pleural thickening": (
        "There is {size} {side} pleural thickening.",
        "{Side} lateral pleural thickening is noted.",
        "{Size} pleural thickening is seen along the {side} chest wall.",
        "Chronic {side} pleural thickening appears stable.",
    ),
    "Pneumothorax": (
        "There is a {size} {side} pneumothorax.",
        "A {size} {side} apical pneumothorax is present.",
        "{Size} {side} pneumothorax is seen with a visible pleural line.",
        "Absent lung markings at the {side} apex indicate a {size} pneumothorax.",
    ),
    "Pulmonary fibrosis": (
        "There is {size} fibrosis in the {side} {zone} lung.",
        "Coarse fibrosis with honeycombing is seen in the {side} {zone} zone.",
        "{Size} {side} {zone} lung fibrosis is present.",
        "Architectural distortion in the {side} {zone} lung reflects {size} fibrosis.",
    ),
    "Rib fracture": (
        "There is a displaced {side} rib fracture.",
        "A {side} lateral rib fracture is noted.",
        "A fracture of a {side} lateral rib is seen.",
        "Cortical step-off of a {side} rib is compatible with fracture.",
    ),
    "Device": (
        "A {side} chest wall pacemaker is in place.",
        "An implanted device generator projects over the {side} chest.",
        "{Side} pacemaker generator is noted.",
        "{Side} pectoral pacer device remains in standard position.",
    ),
    "Hernia": (
        "There is a {size} hiatal hernia.",
        "A {size} retrocardiac hiatal hernia is noted.",
        "A hiatal hernia with an air-fluid level is seen.",
        "Rounded lucency behind the heart represents a {size} hiatal hernia.",
    ),
}
NORMAL_SENTENCES: dict[str, tuple[str, ...]] = {
    "lungs": (
        "The lungs are clear.",
        "Lungs are well expanded and clear.",
        "There is no focal consolidation.",
        "The lungs are fully inflated without focal airspace disease.",
    ),
    "pleura": (
        "There is no pleural effusion or pneumothorax.",
        "No pleural effusion or pneumothorax is seen.",
        "The pleural surfaces are smooth, with no effusion or pneumothorax.",
    ),
    "heart": (
        "The heart size is normal.",
        "The cardiac silhouette is normal in size.",
        "Heart size is within normal limits.",
        "The heart is not enlarged.",
    ),
    "mediastinum": (
        "The mediastinal and hilar contours are normal.",
        "Mediastinal contours are unremarkable.",
        "The cardiomediastinal borders are well defined.",
    ),
    "bones": (
        "The osseous structures are intact.",
        "No acute osseous abnormality is seen.",
        "Bony structures are grossly unremarkable.",
        "Visualized bones show no acute injury.",
    ),
}
INDICATIONS = (
    "cough and fever",
    "shortness of breath",
    "chest pain",
    "fall",
    "weakness",
    "hypoxia",
    "preoperative evaluation",
)
COMPLAINTS: dict[str, tuple[str, ...]] = {
    "Aortic enlargement": ("long-standing hypertension", "back pain"),
    "Atelectasis": ("shallow breathing after surgery",),
    "Cardiomegaly": ("leg swelling", "known heart failure"),
    "Clavicle fracture": ("fall on the shoulder",),
    "Consolidation": ("cough and fever", "productive cough"),
    "Edema": ("orthopnea", "known heart failure"),
    "Emphysema": ("smoking for 40 years",),
    "Enlarged PA": ("syncope on exertion",),
    "ILD": ("dry cough for months",),
    "Infiltration": ("cough and fever", "productive cough"),
    "Lung cavity": ("night sweats and weight loss",),
    "Nodule/Mass": ("weight loss", "smoking for 40 years"),
    "Pleural effusion": ("shortness of breath", "dullness on percussion"),
    "Pneumothorax": ("sudden pleuritic pain",),
    "Pulmonary fibrosis": ("dry cough for months", "clubbing"),
    "Rib fracture": ("fall from a ladder", "pain on breathing after a fall"),
}
CHANGE_WORDS: dict[str, tuple[str, ...]] = {
    "unchanged": ("unchanged from the prior study", "stable since the prior study"),
    "increased": ("increased since the prior study", "larger than on the prior study"),
    "decreased": ("decreased since the prior study", "smaller than on the prior study"),
    "new": ("new since the prior study",),
}
