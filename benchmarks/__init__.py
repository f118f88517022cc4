"""Benchmarks: each measures a figure that the documentation quotes."""
