"""Generated stubs of the protocol's package generate.v2."""
