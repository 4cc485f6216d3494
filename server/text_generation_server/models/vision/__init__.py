"""Towers that read images, projectors to a decoder's width, and what puts features where a decoder finds them."""
