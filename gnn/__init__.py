"""The science of Sluice: structures, lake, graphs, networks, potentials, simulation, DFT and screening.

Nothing here knows Prefect, MLflow or Dask; every function can be called from a notebook.
"""

__version__ = "0.1.0"
