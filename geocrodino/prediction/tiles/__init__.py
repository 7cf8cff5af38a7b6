"""Tiles of a scene: where they lie, their prediction, their stitching."""
