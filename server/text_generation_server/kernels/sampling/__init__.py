"""Kernels that choose tokens: a row is shared by many programs, and every sum that decides is one of integers."""
