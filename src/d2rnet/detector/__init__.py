"""Unbiased Teacher v2 (Faster R-CNN variant) as a detectron2 extension: COCO json in, weights and pseudo boxes out."""
