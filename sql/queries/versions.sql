-- name: get_head
-- Grain: one encoder, or none. The snapshot that queries use.
SELECT encoder_id, snapshot_id, generation
FROM index_heads
WHERE encoder_id = :encoder_id;

-- name: list_heads
-- Grain: an encoder. Order: by id.
SELECT encoder_id, snapshot_id, generation
FROM index_heads
ORDER BY encoder_id;

-- name: move_head
-- The swap: to a later generation only, so that of two that follow the same snapshot the first stays.
INSERT INTO index_heads (encoder_id, snapshot_id, generation)
VALUES (:encoder_id, :snapshot_id, :generation)
ON CONFLICT (encoder_id) DO UPDATE SET snapshot_id = excluded.snapshot_id, generation = excluded.generation
WHERE index_heads.generation < excluded.generation;

-- name: add_version
-- A numbered version of a collection; nothing changes when the number, or the digest, has one.
INSERT INTO versions (name, number, version_id, digest, created_at)
VALUES (:name, :number, :version_id, :digest, :created_at)
ON CONFLICT DO NOTHING;

-- name: last_version
-- Grain: one row. The highest number of a collection, 0 when it has none.
SELECT COALESCE(MAX(number), 0) AS number
FROM versions
WHERE name = :name;

-- name: get_version_by_digest
-- Grain: one version, or none.
SELECT name, number, version_id, digest, mlflow_run_id, mlflow_url, created_at, run_number, mlflow_version, shown
FROM versions
WHERE name = :name AND digest = :digest;

-- name: get_version_by_number
-- Grain: one version, or none.
SELECT name, number, version_id, digest, mlflow_run_id, mlflow_url, created_at, run_number, mlflow_version, shown
FROM versions
WHERE name = :name AND number = :number;

-- name: list_versions
-- Grain: a version. Order: newest first, then by name.
SELECT name, number, version_id, digest, mlflow_run_id, mlflow_url, created_at, run_number, mlflow_version, shown
FROM versions
ORDER BY created_at DESC, name, number DESC;

-- name: set_version_run
-- Where a version was published last, which is the publication of the highest number.
UPDATE versions
SET mlflow_run_id = :mlflow_run_id, mlflow_url = :mlflow_url, run_number = :run_number, mlflow_version = :mlflow_version, shown = :shown
WHERE name = :name AND number = :number AND run_number < :run_number;

-- name: add_standing
-- The aliases and yanks of a collection, each time one of them changes; entered once.
INSERT INTO standings (name, number, body, what, said_by, said_at)
VALUES (:name, :number, :body, :what, :said_by, :said_at)
ON CONFLICT DO NOTHING;

-- name: last_standing
-- Grain: one collection, or none. What stands.
SELECT name, number, body, what, said_by, said_at
FROM standings
WHERE name = :name
ORDER BY number DESC
LIMIT 1;

-- name: list_standings
-- Grain: a change. Order: by collection, then as they were said.
SELECT name, number, body, what, said_by, said_at
FROM standings
ORDER BY name, number;
