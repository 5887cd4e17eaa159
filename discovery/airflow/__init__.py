"""The platform inside Airflow: assets, task bodies, our own launcher, and a REST client."""
