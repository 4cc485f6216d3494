"""What recurrent layers do from token to token: a convolution, a scan; a program for some channels of a row."""
