"""Generated stubs of the protocol's package kvrun.v1."""
