"""Graphs: neighbour lists, shards of graphs on disk, graph sets and batches."""
