"""Triton kernels and their launchers. Knows no model; each has a twin in torch, which its module names."""
