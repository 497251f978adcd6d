"""A reading as DICOM documents, for archives in research. Needs highdicom; nothing else of the package imports this room."""
