"""Products of a few rows with a large matrix, as one decode step makes them. Knows no model and no batch."""
