"""Client of text-generation-inference servers, sync and async. Knows nothing of the server's code."""

from text_generation.client import AsyncClient, Client

__version__ = "0.1.0"

__all__ = ["AsyncClient", "Client", "__version__"]
