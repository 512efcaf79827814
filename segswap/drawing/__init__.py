"""Pictures of pairs and matches, from arrays alone."""
