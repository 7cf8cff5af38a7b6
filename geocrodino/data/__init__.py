"""From aligned rasters to batches."""
