"""`text-generation-benchmark http`: latency, throughput and goodput of any server, measured as its users see them."""
