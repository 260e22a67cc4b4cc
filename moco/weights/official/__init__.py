"""The files of facebookresearch/moco and facebookresearch/moco-v3: their names, and where they can be had."""
