"""Lets `python -m text_generation_launcher` do what `text-generation-launcher` does."""

from text_generation_launcher.cli import main

if __name__ == "__main__":
    main()
