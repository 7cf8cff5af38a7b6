"""Loss terms: segmentation, contrast, disentanglement, distillation. Each is a function that returns a scalar."""
