"""Reading config.json: what every architecture's file says in the same words."""
