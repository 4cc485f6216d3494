"""Triton kernels and their launchers. Knows no model; what each computes has a twin in torch, to compare it with."""
