"""Starts, watches and ends the processes that serve one model: a download, one shard a rank, one router."""
