"""Attention over paged slots, behind one interface."""
