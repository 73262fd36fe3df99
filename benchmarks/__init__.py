"""Benchmarks: what `make bench` runs. A package only so that mypy can tell its conftest from the tests'."""
