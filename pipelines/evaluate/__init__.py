"""segswap-eval: predictions of several methods, exported and then scored."""
