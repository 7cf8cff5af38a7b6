"""Labels: class rasters, their bands and the names of their classes."""
