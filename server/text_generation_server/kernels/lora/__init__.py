"""Adds to the outputs of a linear what each token's own adapter makes of its inputs: y += up[a] · (down[a] · x).

Twin: `adapters/bank.py::LoraAddend`. Tokens are put in order of their adapters once a step; a program then multiplies
by the matrices of one adapter for a block of its tokens. What is read are the matrices of adapters that are there, as
far as their ranks go; tokens without adapter are nobody's. Everything is found on the device, so that a recorded step
serves every mixture. No sum is made by atomic additions: equal inputs give equal results.

A linear of few rows whose product is a kernel of ours is told what to add instead (`kernels/matmul/low_rank_sums.py`).

What a step's tokens have, and the matrices, are read while the kernel in front still runs: the step's first kernel that
reads them starts when all before it have ended, and so every later one after that.
"""
