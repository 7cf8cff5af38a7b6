"""Rasters: grids, reading, validity, resampling, units."""
