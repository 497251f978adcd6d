"""Unbiased Teacher v2 as a detectron2 extension.

Order of reading, after the paper: ``dataset_mapper`` and ``augmentation`` (views), ``backbone``, ``box_regression``, ``rpn``,
``roi_heads``, ``losses`` (network), ``pseudo_labels`` and ``ema`` (teacher), ``engine`` (one iteration), ``trainer`` (a run),
``predict``. Importing ``registration`` makes the network known to detectron2.

Source: Liu, Ma and Kira, Unbiased Teacher v2, CVPR 2022, arXiv 2206.09500.
"""
