"""Formats of quantised checkpoints: a file each, and a row in `table.py`."""
