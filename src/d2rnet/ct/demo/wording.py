"""Sentences of the demo reports: what a structure with nothing wrong is called, and how each abnormality is told.

Every sentence is written here and nowhere else. Reads and writes: nothing. In abnormal sentences, {lobe}, {side}, {place},
{size}, {grade} stand for what was drawn; a sentence is used only where it says no more than that.
"""

NORMAL: dict[str, tuple[tuple[str, ...], ...]] = {
    "trachea_bronchi": (
        (
            "The trachea is open, as are the main bronchi.",
            "The trachea lies in the midline and the main bronchi are patent.",
            "Trachea and main bronchi have normal calibre, without an occlusive lesion.",
            "No obstruction is seen in the lumen of the trachea or the main bronchi.",
        ),
    ),
    "heart_mediastinum_vessels": (
        (
            "Heart size is normal.",
            "The heart is of normal size and configuration.",
            "Cardiac dimensions are within normal limits.",
        ),
        (
            "The calibre of the major mediastinal vessels is normal.",
            "Thoracic aorta and pulmonary arteries are of normal diameter.",
            "The aorta and the main pulmonary artery are not dilated.",
        ),
        (
            "No enlarged lymph node is seen in the mediastinum or at the hila.",
            "There are no mediastinal lymph nodes of pathological size.",
            "The mediastinum is free of pathological LAP.",
        ),
        (
            "There is no pericardial effusion or thickening.",
            "No pericardial fluid is present.",
            "Pericardial effusion is absent.",
        ),
    ),
    "lung": (
        (
            "Both lungs are normally aerated, without mass or infiltration.",
            "No active infiltration, mass or nodule is seen in either lung.",
            "Lung parenchyma is clear on both sides.",
            "Aeration of both lungs is normal and no nodular or infiltrative lesion is found.",
        ),
    ),
    "oesophagus": (
        (
            "The oesophagus shows no pathological wall thickening.",
            "The thoracic oesophagus has a normal course and calibre.",
            "The wall of the oesophagus is not thickened by a tumour.",
        ),
    ),
    "pleura": (
        (
            "There is no pleural effusion or thickening.",
            "Neither pleural fluid nor pneumothorax is present.",
            "Pleural effusion is not detected on either side.",
        ),
    ),
    "bone": (
        (
            "The bones within the field of view show no lytic or destructive lesion.",
            "Vertebral bodies keep their height and alignment.",
            "No fracture line is seen in the ribs.",
            "Ribs and thoracic spine are of normal appearance.",
        ),
    ),
    "thyroid": (
        (
            "The thyroid gland is of normal size and homogeneous.",
            "No nodule is seen in the included part of the thyroid.",
        ),
    ),
    "breast_axilla_chest_wall": (
        (
            "No enlarged axillary lymph node is seen.",
            "The soft tissues of the chest wall are unremarkable.",
            "Both axillae are free of pathological lymph nodes.",
        ),
    ),
    "abdomen": (
        (
            "Liver, spleen and kidneys are unremarkable as far as they are included.",
            "No focal lesion is seen in the upper abdominal organs on this unenhanced study.",
            "Both adrenal glands are of normal shape.",
            "The included sections of the upper abdomen show no pathology.",
        ),
    ),
}
FILLER = (
    "Thin-section images were obtained without contrast medium.",
    "The examination was compared with no earlier study.",
    "Without contrast medium the assessment is limited.",
)
ABNORMAL: dict[str, tuple[str, ...]] = {
    "nodule": (
        "{A_count} measuring up to {size} mm {is_are} seen in the {lobe}.",
        "In the {lobe}, {a_count} with a diameter of up to {size} mm {is_are} present.",
        "There {is_are} {a_count} in the {lobe}, the largest {size} mm.",
    ),
    "calcified nodule": (
        "{A_count} with calcification, up to {size} mm in diameter, {is_are} seen in the {lobe}.",
        "The {lobe} contains {a_count} of calcific density measuring up to {size} mm.",
    ),
    "ground glass": (
        "Ground-glass opacities are present in the {lobe}.",
        "There are patchy ground-glass densities in the {lobe}.",
        "Areas of ground-glass attenuation are observed in the {lobe}.",
    ),
    "consolidation": (
        "A consolidation with air bronchograms is seen in the {lobe}.",
        "There is consolidation of the parenchyma in the {lobe}.",
        "The {lobe} shows an area of consolidation.",
    ),
    "atelectasis": (
        "Linear atelectasis is seen in the {lobe}.",
        "There are subsegmental atelectatic bands in the {lobe}.",
        "Band-like atelectatic changes are present in the {lobe}.",
    ),
    "fibrotic sequela": (
        "Fibrotic sequela changes are observed in the {lobe}.",
        "In the {lobe}, there are fibrotic bands consistent with sequelae.",
        "Sequela fibrotic densities with mild distortion are seen in the {lobe}.",
    ),
    "emphysema": (
        "There is {grade} emphysema, most marked in the upper lobes.",
        "{Grade} emphysematous changes are present in both lungs.",
        "Centrilobular emphysema of {grade} degree is seen in both upper lobes.",
    ),
    "mosaic": (
        "Both lungs show a mosaic attenuation pattern.",
        "A mosaic pattern of attenuation is seen in both lungs, perhaps from small airways disease.",
    ),
    "septal thickening": (
        "Interlobular septa are thickened in the lower parts of both lungs.",
        "There is smooth interlobular septal thickening at both lung bases.",
    ),
    "bronchiectasis": (
        "Bronchiectasis is seen in the {lobe}.",
        "The bronchi of the {lobe} are dilated, consistent with bronchiectasis.",
        "There are cylindrical bronchiectatic changes in the {lobe}.",
    ),
    "peribronchial": (
        "Peribronchial thickening is present in both lungs.",
        "The bronchial walls are thickened on both sides.",
        "There is bilateral central peribronchial thickening.",
    ),
    "effusion": (
        "There is {a_side} pleural effusion with a depth of {size} mm.",
        "{A_side} pleural effusion measuring {size} mm at its thickest part is seen.",
        "Pleural fluid, {size} mm deep, is present {on_side}.",
    ),
    "cardiomegaly": (
        "The heart is enlarged.",
        "Heart size is increased.",
        "There is cardiomegaly.",
    ),
    "pericardial effusion": (
        "There is a pericardial effusion of {size} mm.",
        "Pericardial fluid measuring {size} mm in thickness is seen.",
    ),
    "aortic calcification": (
        "Calcified atheromatous plaques are seen in the wall of the thoracic aorta.",
        "There are calcifications of the aortic wall.",
        "Atherosclerotic wall calcification of the aorta is present.",
    ),
    "coronary calcification": (
        "{Grade} calcification of the coronary arteries is seen.",
        "The coronary arteries show {grade} calcific plaques.",
    ),
    "hiatal hernia": (
        "A {grade} hiatal hernia is present.",
        "There is a {grade} sliding hiatal hernia at the lower end of the oesophagus.",
    ),
    "mediastinal nodes": (
        "Enlarged {place} lymph nodes with a short axis of up to {size} mm are seen.",
        "There is mediastinal lymphadenopathy at the {place} level, the largest node {size} mm.",
    ),
    "axillary nodes": (
        "An enlarged lymph node of {size} mm is seen in the {side} axilla.",
        "There is {side} axillary lymphadenopathy, up to {size} mm in short axis.",
    ),
    "pacemaker": (
        "A pacemaker lies in the left anterior chest wall, its leads end in the right heart.",
        "There is a cardiac pacemaker below the left clavicle.",
    ),
    "port": (
        "A port catheter lies in the right anterior chest wall, its tip in the superior vena cava.",
        "There is a port chamber below the right clavicle.",
    ),
    "sternotomy": (
        "Sternotomy wires are seen.",
        "There are metallic sutures in the sternum after an operation.",
    ),
    "valve": (
        "A prosthetic heart valve is seen in aortic position.",
        "There is a metallic aortic valve prosthesis.",
    ),
    "central line": (
        "A central venous catheter ends in the superior vena cava.",
        "The tip of a jugular catheter lies in the superior vena cava.",
    ),
    "fatty liver": (
        "The density of the liver is reduced, consistent with steatosis.",
        "There is hepatic steatosis.",
        "The liver is of low density, in keeping with fatty infiltration.",
    ),
    "liver lesion": (
        "{A_count} of low density {is_are} seen in the liver, up to {size} mm.",
        "In the liver, {a_count} of low density measuring up to {size} mm {is_are} present.",
    ),
    "bone metastases": (
        "Sclerotic metastases are seen in the thoracic vertebrae.",
        "There are multiple sclerotic lesions in the vertebral bodies, consistent with metastases.",
    ),
    "low bone density": (
        "Bone density is diffusely reduced.",
        "There is osteopenia of the included bones.",
        "The bones are diffusely osteoporotic.",
    ),
    "goitre": (
        "The thyroid gland is enlarged and contains hypodense nodules.",
        "There is a multinodular goitre.",
    ),
    "breast mass": (
        "A mass of {size} mm is seen in the {side} breast.",
        "The {side} breast contains a solid mass measuring {size} mm.",
    ),
    "chest wall mass": (
        "A soft tissue mass of {size} mm is seen in the {side} anterior chest wall.",
        "There is a solid mass measuring {size} mm in the {side} chest wall.",
    ),
    "tracheal secretion": (
        "Secretion is seen in the lumen of the trachea.",
        "The trachea contains mucus that narrows its lumen.",
    ),
}
IMPRESSION: dict[str, str] = {
    "Medical material": "Medical device in place",
    "Arterial wall calcification": "Aortic atherosclerosis",
    "Cardiomegaly": "Cardiomegaly",
    "Pericardial effusion": "Pericardial effusion",
    "Coronary artery wall calcification": "Coronary calcification",
    "Hiatal hernia": "Hiatal hernia",
    "Lymphadenopathy": "Lymphadenopathy",
    "Emphysema": "Emphysema",
    "Atelectasis": "Atelectasis",
    "Lung nodule": "Lung nodule, follow-up advised",
    "Lung opacity": "Ground-glass opacities",
    "Pulmonary fibrotic sequela": "Fibrotic sequelae",
    "Pleural effusion": "Pleural effusion",
    "Mosaic attenuation pattern": "Mosaic attenuation",
    "Peribronchial thickening": "Peribronchial thickening",
    "Consolidation": "Consolidation",
    "Bronchiectasis": "Bronchiectasis",
    "Interlobular septal thickening": "Interlobular septal thickening",
    "Fatty liver": "Hepatic steatosis",
    "Liver lesion": "Liver lesion, ultrasound advised",
    "Bone metastases": "Bone metastases",
    "Low bone density": "Osteopenia",
    "Goitre": "Multinodular goitre",
    "Chest wall mass": "Chest wall or breast mass",
    "Tracheal secretion": "Tracheal secretion",
}
