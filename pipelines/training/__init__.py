"""segswap-train and segswap-train-style: runs, their folders, and what is seen of them."""
