"""Where classes are, learned from the classes that pictures show alone: SEAM and SC-CAM."""
