"""Maps fitted to points or pixels, and how sure they are; from arrays alone."""
