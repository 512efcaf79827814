"""The numbers of a search."""

SHORTLIST = 200  # images that are matched, of a larger collection
