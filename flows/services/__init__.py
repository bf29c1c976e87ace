"""Standing services of one home: Prefect, MLflow, Dask and a worker, started, found and stopped by `sluice`."""
