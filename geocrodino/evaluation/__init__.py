"""Scores of class maps."""
