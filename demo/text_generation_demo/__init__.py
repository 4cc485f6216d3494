"""Shows adapters side by side: trains two small ones, serves them beside their model, streams both in a terminal."""
