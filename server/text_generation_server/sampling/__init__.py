"""Choosing the next token of each row: penalties, warpers, the choice itself and its log-probabilities."""
