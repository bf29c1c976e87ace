"""Batched simulation: relaxation of many structures at once with in-flight batching."""
