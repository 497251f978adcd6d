"""From sources to COCO json and reports."""
