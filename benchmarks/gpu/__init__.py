"""Benchmarks on a GPU, for a machine that is at hand for minutes only: one command, each part guarded.

python -m benchmarks.gpu --out DIR          all parts, at most 8 minutes on an H100
python -m benchmarks.gpu --out DIR --dry    the same code at toy size on a CPU, in under 2 minutes
"""
