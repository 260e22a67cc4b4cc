"""Momentum Contrast: from a pile of images to a judged encoder."""

__version__ = "0.1.0"
