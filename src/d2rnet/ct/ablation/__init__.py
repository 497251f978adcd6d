"""Ablation of the chest CT method: what each part of both stages gives, over several seeds, on one split."""
