"""Neighbourhood consensus networks, dense and sparse (Rocco et al., 2018 and 2020)."""
