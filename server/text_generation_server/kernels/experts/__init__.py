"""A mixture of experts for the few tokens of a decode step. Knows no checkpoint.

A pair is a token and one of the experts chosen for it: token t's are t · k to t · k + k − 1. Pairs are put in order of
their experts; programs find there which are theirs, so that nothing waits for the device.
"""
