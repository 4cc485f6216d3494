"""What models keep of past tokens: kinds of state, slots, who may use them, and what they hold."""
