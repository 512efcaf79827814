"""What proposers share: what they are, and which of the regions found are worth copying."""
