"""Weights in and out: every file format, a run's encoder folder, the authors' files, other libraries."""
