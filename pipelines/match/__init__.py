"""Two images matched, and what was found written down."""
