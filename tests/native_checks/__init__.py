"""Checks of the compiled kernels that take tools and minutes: `make test-native` (see docs/kernels.md)."""
