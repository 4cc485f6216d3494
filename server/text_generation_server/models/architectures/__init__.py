"""One module an architecture family: config.json to DecoderSpec. See models/registry.py for who is asked."""
