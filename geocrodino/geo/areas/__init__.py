"""Areas of interest: polygons with a split."""
