"""A trained matcher as users meet it, and the weights that ship in the package."""
