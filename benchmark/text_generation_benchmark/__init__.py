"""Latency and throughput of a running shard, measured through the text-generation-inference protocol."""
