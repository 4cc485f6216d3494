"""Several processes that answer HTTP before one that makes batches."""
