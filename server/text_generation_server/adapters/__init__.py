"""LoRA adapters: read as PEFT saves them, kept side by side on the device, added to a model's linears by sequence."""
