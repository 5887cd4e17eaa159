"""The Airflow assets that chain the scheduled DAGs; the partition of each is a batch id."""

from __future__ import annotations

from airflow.sdk import Asset

GROUP = "discovery"
MANIFEST = Asset(name="manifest", uri="x-discovery://store/manifest", group=GROUP)
EMBEDDINGS = Asset(name="embeddings", uri="x-discovery://store/embeddings", group=GROUP)
INDEX = Asset(name="index", uri="x-discovery://store/index", group=GROUP)
DATASET_VERSION = Asset(name="dataset_version", uri="x-discovery://store/dataset_version", group=GROUP)
