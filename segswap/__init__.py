"""Image pairs that share a region, with exact masks and correspondences, and trained matchers."""
