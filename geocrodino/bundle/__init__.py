"""One file that holds a trained model."""
