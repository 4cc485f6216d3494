"""What an answer must match: grammars compiled, followed token by token, and turned into masks over the vocabulary."""
