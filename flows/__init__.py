"""The orchestration of Sluice: Prefect flows, Dask clusters, the MLflow registry and the command line."""
