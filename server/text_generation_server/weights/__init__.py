"""Finding a model, and reading its tensors: lazily, and only the part that a rank computes with."""
