"""The lake: one Delta table of records a data set, what was refused beside it, versions and content digests."""

from gnn.lake.reference import parse_reference
from gnn.lake.table import Appended, Lake

__all__ = ["Appended", "Lake", "parse_reference"]
