"""Inference backends: PyTorch and OpenVINO."""
