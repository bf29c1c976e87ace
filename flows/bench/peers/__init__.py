"""Peers to be measured beside: their environments, and workers that run inside them."""
