"""Detectors on our encoders, built from torchvision's R-CNN parts, with the computations of Detectron2."""
