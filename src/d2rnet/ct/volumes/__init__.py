"""Reading of CT volumes: NIfTI, DICOM series, MetaImage and NRRD, to Hounsfield units in one orientation."""
