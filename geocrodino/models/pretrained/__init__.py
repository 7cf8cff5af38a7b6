"""Pretrained weights of encoders: from files, from installed packages and from the Hugging Face hub."""
