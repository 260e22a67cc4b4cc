"""Checkpoints of MoCo's authors (facebookresearch/moco and moco-v3): convert their names, download them."""
