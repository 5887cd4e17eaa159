"""S3 credentials from an Airflow connection, so that they live in Airflow's own store or secrets backend and nowhere else."""

from __future__ import annotations

from typing import Any

from discovery.config import Config, load_config
from discovery.errors import ConfigError


def configured() -> Config:
    """The settings, with what the Airflow connection named by `s3.airflow_connection` holds. For tasks and the API server only.

    Of the connection are used, as Airflow's Amazon provider names them: login and password (or `aws_access_key_id`,
    `aws_secret_access_key`), and of its extra `aws_session_token`, `region_name` and `endpoint_url` (or `service_config.s3.endpoint_url`).
    What it leaves empty stays as it is configured, so that an empty connection means the usual chain. Raises ConfigError.
    """
    config = load_config()
    return with_connection(config, config.s3.airflow_connection) if config.s3.airflow_connection else config


def with_connection(config: Config, connection_id: str) -> Config:
    """The settings with the S3 access of one Airflow connection. Raises ConfigError when it is missing or cannot be used."""
    from airflow.sdk import Connection
    from airflow.sdk.exceptions import AirflowNotFoundException

    try:
        connection = Connection.get(connection_id)
    except AirflowNotFoundException as error:
        raise ConfigError(
            f"s3.airflow_connection = {connection_id!r}: Airflow has no such connection. Add it under Admin → Connections, "
            f"or as variable AIRFLOW_CONN_{connection_id.upper()}."
        ) from error
    extra: dict[str, Any] = connection.extra_dejson
    for unusable in ("role_arn", "profile_name"):
        if extra.get(unusable):
            raise ConfigError(
                f"s3.airflow_connection = {connection_id!r}: {unusable} is not used, since credentials taken from it would expire in the middle of a "
                "run. Leave s3.airflow_connection empty and set AWS_PROFILE on the workers: that chain renews them."
            )
    service = (extra.get("service_config") or {}).get("s3") or {}
    found = {
        "access_key_id": connection.login or extra.get("aws_access_key_id"),
        "secret_access_key": connection.password or extra.get("aws_secret_access_key"),
        "session_token": extra.get("aws_session_token"),
        "region": extra.get("region_name"),
        "endpoint_url": service.get("endpoint_url") or extra.get("endpoint_url"),
    }
    return config.replace(s3={name: value for name, value in found.items() if value})
