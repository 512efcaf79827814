"""segswap-check: whether a dataset is what its manifest and masks say."""
