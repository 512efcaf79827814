"""segswap-discover: what repeats in a collection, as files and a page."""
