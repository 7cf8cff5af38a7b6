"""Modalities: what a branch reads of a raster. Importing the package registers ``optical`` and ``elevation``."""

from geocrodino.modalities import elevation, optical

__all__ = ["elevation", "optical"]
