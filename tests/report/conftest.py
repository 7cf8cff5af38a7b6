"""Small maps and labels on disk."""

from small_maps import scheme, write_labels, write_map

__all__ = ["scheme", "write_labels", "write_map"]
