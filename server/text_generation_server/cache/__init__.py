"""Keys and values of past tokens: the pool of slots, who may use them, and what they hold."""
