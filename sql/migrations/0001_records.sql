-- Records, their lineage, names that point at them, the index heads and the numbered dataset versions.
CREATE TABLE records (
    id          TEXT NOT NULL PRIMARY KEY,
    stage       TEXT NOT NULL,
    sequence    BIGINT NOT NULL UNIQUE,
    created_at  TEXT NOT NULL,
    body        TEXT NOT NULL
);
CREATE INDEX records_by_stage ON records (stage, sequence);

CREATE TABLE lineage (
    child_id   TEXT NOT NULL,
    parent_id  TEXT NOT NULL,
    PRIMARY KEY (child_id, parent_id)
);
CREATE INDEX lineage_by_parent ON lineage (parent_id);

CREATE TABLE names (
    kind       TEXT NOT NULL,
    name       TEXT NOT NULL,
    record_id  TEXT NOT NULL,
    PRIMARY KEY (kind, name)
);

CREATE TABLE index_heads (
    encoder_id   TEXT NOT NULL PRIMARY KEY,
    snapshot_id  TEXT NOT NULL,
    generation   BIGINT NOT NULL
);

CREATE TABLE versions (
    name           TEXT NOT NULL,
    number         BIGINT NOT NULL,
    version_id     TEXT NOT NULL,
    digest         TEXT NOT NULL,
    mlflow_run_id  TEXT,
    mlflow_url     TEXT,
    created_at     TEXT NOT NULL,
    PRIMARY KEY (name, number),
    UNIQUE (name, digest)
);
