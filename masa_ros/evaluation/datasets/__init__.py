"""Readers of published data sets, one file each, all giving `Sequence` objects."""
