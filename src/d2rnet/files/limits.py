"""Limits of what files may say: sides and coordinates in pixels."""

MAX_SIDE_PX = 65535  # the greatest number of rows or columns that a DICOM header can tell


MAX_COORDINATE = 1e9  # pixels; far beyond any image, far below what a float holds exactly
