"""The files of facebookresearch/moco and facebookresearch/moco-v3: their names, and where to download them."""
