"""From a model directory to logits: specs of architectures, and the one decoder that runs them all."""
