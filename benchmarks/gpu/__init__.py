"""Benchmarks on a GPU that is available for minutes only: one command; a part that fails does not stop the others.

python -m benchmarks.gpu --out DIR          all parts, at most 8 minutes on an H100
python -m benchmarks.gpu --out DIR --dry    the same code at toy size on a CPU, in under 2 minutes
"""
