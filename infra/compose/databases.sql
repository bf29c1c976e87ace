-- run once, when the volume is empty; POSTGRES_DB makes the first
CREATE DATABASE mlflow;
