"""Rasters, grids and areas of interest."""
