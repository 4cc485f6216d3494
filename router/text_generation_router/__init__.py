"""The router: one asyncio process that takes HTTP requests, batches them, and drives the shards over generate.v3."""
