"""Conversations as prompts."""
