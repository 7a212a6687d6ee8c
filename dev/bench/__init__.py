"""Benchmarks: each prints its figures, the machine and the date."""
