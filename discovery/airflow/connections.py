"""What Airflow connections hold: S3 credentials, which so live in Airflow's own store or secrets backend alone, and the Dask scheduler."""

from __future__ import annotations

from typing import Any

from discovery.config import Config, load_config
from discovery.errors import ConfigError

PROTOCOLS = ("tcp", "tls", "ws", "wss")  # of Dask's addresses
DASK_PORT = 8786  # a scheduler's own default


def configured() -> Config:
    """The settings, with what the Airflow connections named by `s3.airflow_connection` and `dask.airflow_connection` hold.

    For tasks and the API server only. Of the second is used the scheduler's address (see `scheduler_address`). Of the first are used, as Airflow's Amazon provider names them: login and password (or `aws_access_key_id`,
    `aws_secret_access_key`), and of its extra `aws_session_token`, `region_name` and `endpoint_url` (or `service_config.s3.endpoint_url`).
    What it leaves empty stays as it is configured, so that an empty connection means the usual chain. Raises ConfigError.
    """
    config = load_config()
    if config.dask.airflow_connection:
        address = scheduler_address(_connection("dask", config.dask.airflow_connection), config.dask.airflow_connection)
        config = config.replace(dask={"scheduler": address})
    return with_connection(config, config.s3.airflow_connection) if config.s3.airflow_connection else config


def scheduler_address(connection: Any, connection_id: str) -> str:
    """The address of a connection's Dask scheduler, such as tcp://host:8786.

    Its host may be the whole address; else its schema, or its type, is the protocol (tcp, tls, ws, wss; else tcp), and 8786 the port
    unless it says another. Raises ConfigError without a host.
    """
    host = (connection.host or "").strip()
    if not host:
        raise ConfigError(f"dask.airflow_connection = {connection_id!r}: the connection has no host. Give the Dask scheduler's, and its port.")
    if "://" in host:
        return host
    named = [name for name in (connection.schema, connection.conn_type) if name in PROTOCOLS]
    return f"{named[0] if named else PROTOCOLS[0]}://{host}:{connection.port or DASK_PORT}"


def with_connection(config: Config, connection_id: str) -> Config:
    """The settings with the S3 access of one Airflow connection. Raises ConfigError when it is missing or cannot be used."""
    connection = _connection("s3", connection_id)
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


def _connection(section: str, connection_id: str) -> Any:
    from airflow.sdk import Connection
    from airflow.sdk.exceptions import AirflowNotFoundException

    try:
        return Connection.get(connection_id)
    except AirflowNotFoundException as error:
        raise ConfigError(
            f"{section}.airflow_connection = {connection_id!r}: Airflow has no such connection. Add it under Admin → Connections, "
            f"or as variable AIRFLOW_CONN_{connection_id.upper()}."
        ) from error
