"""Reading radiographs with trained models: from image files to findings, boxes and pages that people look at.

Order of reading: ``cxr_settings`` (those of the run), ``cxr`` (one image or study through both models), ``content`` and
``result`` (what comes out), ``overlay``, ``page``, ``coco_export`` (how it is written), ``batch`` (the command 'd2rnet read').
The same code as the workflow's converts, detects, filters and writes, so an image of the cohort is read as the workflow did.
"""
