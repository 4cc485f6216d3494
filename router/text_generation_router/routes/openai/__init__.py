"""OpenAI's API: chats, completions, and the list of models."""
