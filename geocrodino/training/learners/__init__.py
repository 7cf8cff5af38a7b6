"""One learner for each family of methods: its networks, and its loss terms of a batch."""
