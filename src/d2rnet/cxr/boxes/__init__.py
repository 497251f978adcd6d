"""Boxes: COCO files, geometry, matching, scores."""
