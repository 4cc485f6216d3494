"""A mixture of experts for the few tokens of a decode step. Knows no checkpoint and no router.

A pair is a token and one of the experts chosen for it: token t's are t · k to t · k + k − 1. Nothing is sorted: a
program finds the pairs of its expert among all of them, as there are few.
"""
