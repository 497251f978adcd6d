"""Radiographs: DICOM, PNG and JPG to grey levels."""
