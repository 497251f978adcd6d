"""Reading radiographs and CTs with trained models: from files to findings, boxes, attention and pages that people look at.

Order of reading: ``cxr_settings`` (those of the run), ``cxr`` (one image or study through both models), ``content`` and
``result`` (what comes out), ``own_boxes`` and ``box_files`` (boxes of a person), ``overlay``, ``page``, ``radiograph_page``,
``coco_export`` (how it is written); of CTs likewise ``ct_settings``, ``ct``, ``ct_view``, ``ct_content``, ``ct_result``,
``ct_page``; ``inputs`` and ``batch`` (the command 'd2rnet read').
The same code as the workflow's converts, detects, filters and writes, so an image of the cohort is read as the workflow did.
"""
