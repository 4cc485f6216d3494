"""How models write calls of tools and reasoning, a file a format. `registry` says which there are."""
