"""Learners, one for each family of methods: the networks that a method trains, and its loss terms for a batch."""
