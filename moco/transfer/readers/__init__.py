"""Readers of annotations in the formats of benchmarks and annotation tools, one file for each format."""
