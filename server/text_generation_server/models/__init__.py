"""From a model directory to logits: one decoder for every spec, and transformers' code for models without one."""
