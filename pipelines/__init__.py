"""Jobs at any scale and the command lines that start them."""
