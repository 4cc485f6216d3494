"""The parts of a decoder layer. They know tensors, ranks, and where rotated keys go; no checkpoint names."""
