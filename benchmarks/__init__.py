"""Benchmarks: our time and a reference's, measured in the same run. `make bench` runs all of them."""
