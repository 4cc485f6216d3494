"""The forms in which weights are stored and multiplied, behind one interface."""
