"""Detectors on any of our encoders, from torchvision's R-CNN parts, that compute what Detectron2 does."""
