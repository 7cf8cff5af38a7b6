"""What a branch reads of a raster: channels, statistics, bands, ranges of values."""
