"""What ranks exchange: collectives on tensors, and rank 0's plans. The only package that knows torch.distributed."""
