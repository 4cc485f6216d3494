"""The shard server: one process a rank, serving a language model over the text-generation-inference protocol."""
