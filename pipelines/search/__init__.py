"""segswap-index and segswap-retrieve: a collection's features on disk, and hits in it."""
