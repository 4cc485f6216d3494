"""The parts of a decoder layer. They know tensors and ranks, but no checkpoint names and no cache."""
