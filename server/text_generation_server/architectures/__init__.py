"""One module an architecture family: config.json to DecoderSpec. See architectures/registry.py for who is asked."""
