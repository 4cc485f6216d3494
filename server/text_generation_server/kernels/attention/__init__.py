"""Attention over paged slots: `decode` for one token a row, `prefill` for any number. Twin: `attention/sdpa.py`."""
