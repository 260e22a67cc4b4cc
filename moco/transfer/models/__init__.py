"""Detectors on our encoders, built from torchvision's R-CNN parts, with the computations of Detectron2.

"Difference N" in comments is row N of the table of differences from torchvision in docs/transfer.md, Detectors.
"""
