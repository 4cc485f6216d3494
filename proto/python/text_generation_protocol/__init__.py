"""Generated stubs of the shard protocol, one package a version."""
