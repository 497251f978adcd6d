"""Data stage: radiograph files and tables in, COCO json and a report table out. Never imports torch."""
