"""What the pages show: pure functions from a `Library` to small frozen records that become JSON.

Nothing here writes, computes with vectors, or imports a stage: the API server must stay light, and must not run torch or OpenMP code
in a process that Airflow forks.
"""
