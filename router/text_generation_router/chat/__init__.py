"""Conversations as the prompts that models were trained on."""
