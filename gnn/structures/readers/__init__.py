"""Readers: one module a format. `read_records` gives the records of any file, in the units of the house."""

from gnn.structures.readers.raw import Rejected, UnreadableFile
from gnn.structures.readers.read import guess_reader, known_to_ase, read_records, read_whole

__all__ = ["Rejected", "UnreadableFile", "guess_reader", "known_to_ase", "read_records", "read_whole"]
