"""Words that say that something is wrong, in English chest CT reports: data for ct_mentions.py, no logic.

Phrases as in phrases.py, with ``_`` for the space. One that is denied or of the past says nothing. Own work.
"""

from d2rnet.findings.phrases import phrases

ABNORMAL: tuple[str, ...] = phrases("""
    *adenopath* *atelect* *cholecystectom* *cholelith* *hydronephro* *lymph_node* *nodular *pneumothora* *steatos*
    abnormal* above_normal above_the_normal abscess* absent accessory_spleen* adenoma* adenomegal* adenopath* adiposity
    agenesis air_cyst* air_trapping anasarca aneurysm* angulat* anomal* anterolisthes* arthrit* arthros* ascites
    aspirat* asymmetr* atelect* athero* atresia atroph* bigger_than_normal bleb* blunt* bone_island* bronchiecta*
    bronchiolitis bud_branch* budding_tree* bulging bulla* bullous by_pass bypass calcif* calculi calculus callus
    carcinoma* cardiomegaly catheter* cavit* cholecystectomized cholelith* circumflex_aorta clip clips coarse coil*
    collapse* collection* compress* congest* conglomerat* consolidat* contaminat* contamination covid* crowding cyst
    cystectom* cystic cysts damage* decrease decrease_in_bone_density decrease_in_density decrease_in_liver
    decrease_in_parenchymal_density decrease_in_the_density decreased decreased_density decreased_diffusely
    decreased_height deformation* deformed deformit* degenerat* densities_decreased density_decreased
    density_is_diffusely_reduced density_is_reduced density_increase*
    density_increment* density_of_bone*_decreased destruct* deviat* diffuse_decrease diffusely_decreased dilat*
    dilatation* dirty displac* distend* distension diverticul* double_j drain drains ectas* ectatic edema* effusion*
    elevat* elongat* embol* emboli emphysem* empyema* enchondroma* enlarg* enostos* eros* erosive eventration* expan*
    fat_necrosis fatty fibro* fibros* fibrot* filling_defect* fistul* flatten* fluid foreign_body fractur* free_air
    free_fluid frosted_glass fungal fused fusion ganglion* goiter* granulom* ground_glass gynaecomast* gynecomast*
    haematoma* halo hamartom* height_decrease* height_loss heights_decreased hemangiom* hematom* hemivertebra*
    hemorrhag* hepatomegal* hernia* hernias herniat* heterogen* high_riding honey_comb* honeycomb* hydronephro*
    hydrothora* hyperaer* hyperdens* hyperinflat* hyperostos* hypertroph* hypoaer* hypodens* hypoplas* hypostatic icd
    implant implants incarcerat* inclusion* increas* increase_in_thickness increased_densities increased_density
    infarct* infect* infiltrat* inflam* inhomogen* intubat* invad* invas* irregular* kyphos* kyphoscolio* kyphosis
    kyphotic lap laps larger larger_than_normal leiomyom* lesion* linear_density lipoma* lobectom* loculat* loss
    loss_of_height luxat* lymph_node* lymphadenopath* lymphoma* lytic malformat* malign* mass masses mastectom* metallic
    metasta* metastas* metastat* mm_thick mosaic mucoid_impact* mucus_impact* mucus_plug* multinodular narrow* necro* neoplas*
    nephrectom* nephrolith* nodes nodul* not_observed_operated obliterat* obstruct* occlu* opaci* operat* operated
    osteochond* osteolyt* osteopen* osteophyt* osteopor* osteoscler* over_the_normal pace_maker* pacemaker* paraly*
    paralysis patholog* pectus* pericardit* plaque* plate plethor* pleural_thickening pleurisy pneumatocel*
    pneumomediast* pneumon* pneumonectom* pneumonia pneumoperit* polyp* porotic port_catheter post_operat* postoperat*
    progress* prominen* prosthe* protrusion* ptosis recession* reduced_bone_density replacement resect* reticul*
    retract* rotat* ruptur* sarcoid* scar scarring schmorl* sclero* scolio* screw* secret* segmentectom* sequel*
    sequest* sharpening shift* shrink* shrunk* small_size* smaller_than_normal soft_tissue_density soiled
    space_occupying* spiculat* splenectom* splenomegal* spondyl* spondylosis spur spurs steatos* steatot* lymphangit*
    spread stenos* stenot* stent* sternotom* stone stones stranding subluxat* suture* swelling swollen syndesmoph*
    tamponade tapering thicken* thickened thicker_than_normal thickness_increase* thinning thromb* thyroidectom* torsion
    tortuos* tortuous traction* transplant* tree_in_bud tube tumor* tumoral tumorous ulcer* vacuum_phenomen* variant*
    varic* volume_loss wedg* wide widen* wider wider_than_normal wire wires
""")

# Wording that holds such a word and says nothing of the kind.
HARMLESS: tuple[str, ...] = phrases("""
    abdominal_cavit* cardiac_cavit* chest_cavit* heart_cavit* mm_thick_section* mm_thick_slice* peritoneal_cavit*
    pleural_cavit* thoracic_cavit*
    fibroglandular* fibrofatty body_mass bone_window cancer_screening clinical_progress consolidated_view
    contrast_material contrast_medium decrease_in_number decrease_in_size decrease_in_the_size decreased_compared
    decreased_in_size decreased_minimally density_and evaluated_in_terms_of expand_normally expansion_of_both fatty_hila
    fatty_hilum fatty_hilus fluid_density_value follow_up for_infection foreign_body_sensation free_of hilar_fat
    in_terms_of_infection increased_detail increased_from infection_parameters lesion_detection lung_cancer
    lung_expansion lung_window mass_effect mass_or_infiltrative metal_artifact* metallic_artifact* metastasis_screening
    mm_in_size motion_artifact* no_increase no_mass nodal_station* non_mass normal_nodes normal_variant* not_patholog*
    occluded_by operated_on operating plaque_like respiratory_artifact* section_thickness significantly_decreased
    size_decreased sizes_decreased slice_thickness slightly_decreased space_of thickness_images tube_current
    tube_voltage variant_of_normal wide_angle widths window_widening
""")
