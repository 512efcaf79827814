"""The correlation matcher: gradient descriptors, consensus of neighbours, and voting."""
