"""Class maps of scenes of any size."""
