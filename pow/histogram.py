"""`leading_zero_histogram` under the name that it has always had; it is in `pow.scanning.histogram`."""

from pow.scanning.histogram import leading_zero_histogram

__all__ = ["leading_zero_histogram"]
