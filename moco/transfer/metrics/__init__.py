"""Scores of detection and segmentation, as the benchmarks define them."""
