"""Small maps and labels on disk."""

from helpers.small_maps import scheme, write_labels, write_map

__all__ = ["scheme", "write_labels", "write_map"]
