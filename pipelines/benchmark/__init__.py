"""segswap-benchmark: published protocols on data that the user has."""
