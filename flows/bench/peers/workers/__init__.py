"""Programs that run inside a peer's environment: they import numpy, torch and the peer, and nothing of ours.

Started as `python -m workers.NAME` with this folder's parent on PYTHONPATH; requests come as JSON lines on stdin,
answers leave as JSON lines on stdout.
"""
