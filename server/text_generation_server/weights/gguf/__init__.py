"""Reading GGUF files: turns one into an ordinary model directory. Knows nothing of serving, hubs or caches."""
