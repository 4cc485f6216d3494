"""What recurrent layers do from token to token: a convolution, scans; a program for some channels of a row.

Where every row has one token, what is kept of it is read before the kernel in front is waited for: the last step wrote
it, and between steps there are copies, which let nothing overlap.
"""
