-- Aliases and yanks of a collection: every state it was in, numbered as in the store's journal; the highest number stands.
CREATE TABLE standings (
    name      TEXT NOT NULL,
    number    BIGINT NOT NULL,
    body      TEXT NOT NULL,
    what      TEXT NOT NULL,
    said_by   TEXT NOT NULL,
    said_at   TEXT NOT NULL,
    PRIMARY KEY (name, number)
);

-- Where a version is in MLflow's registry, and the state of it that MLflow shows; without it the version waits to be published.
ALTER TABLE versions ADD COLUMN mlflow_version TEXT;

ALTER TABLE versions ADD COLUMN shown TEXT;
