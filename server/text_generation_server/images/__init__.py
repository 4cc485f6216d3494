"""Images from the bytes that a client sent to what a tower is given, and the prompt positions that they fill."""
