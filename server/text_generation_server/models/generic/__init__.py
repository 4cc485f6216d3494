"""Models that have no architecture here, run through transformers' own code with our paged attention."""
