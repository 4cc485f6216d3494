"""What a model is, as data: values that files say, without a tensor. Imports nothing else of the server."""
