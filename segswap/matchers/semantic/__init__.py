"""The semantic matcher: the same kind of thing and the very same thing, by one network."""
