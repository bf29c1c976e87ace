"""Layers, the network families and their heads."""
