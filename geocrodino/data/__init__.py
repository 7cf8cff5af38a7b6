"""Rasters on one grid, their statistics, and the batches of patches that a training reads."""
