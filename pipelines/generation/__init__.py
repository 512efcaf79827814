"""segswap-generate: shards of pairs and what stands beside them."""
