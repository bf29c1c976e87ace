"""Structures: the record and its schema, units, checks, cards and the readers of each file format."""
