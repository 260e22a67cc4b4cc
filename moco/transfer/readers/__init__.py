"""Annotations in the formats of benchmarks and annotation tools, each in a file of its own."""
