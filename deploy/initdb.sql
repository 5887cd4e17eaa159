-- One server, three databases: Airflow's own, the catalog of records, MLflow's.
CREATE DATABASE airflow;
CREATE DATABASE catalog;
CREATE DATABASE mlflow;
