"""Public data sets of images with heights: what their files are called, what they hold, and how they are divided."""
