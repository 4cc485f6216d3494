"""The shard protocol: generated stubs, one package a version, and what a caller writes with them."""
