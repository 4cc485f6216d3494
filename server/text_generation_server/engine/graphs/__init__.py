"""Steps recorded once and replayed: of one token a row, and of few tokens. `device/recorder.py` records."""
