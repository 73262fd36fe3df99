"""Benchmarks: what `make bench` runs. A package, so that its files import each other by one name."""
