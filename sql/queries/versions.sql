-- name: get_head
-- Grain: one encoder, or none. The snapshot that queries use.
SELECT snapshot_id, generation
FROM index_heads
WHERE encoder_id = :encoder_id;

-- name: list_heads
-- Grain: an encoder. Order: by id.
SELECT encoder_id, snapshot_id, generation
FROM index_heads
ORDER BY encoder_id;

-- name: create_head
-- The first snapshot of an encoder; no row is written when another writer was first.
INSERT INTO index_heads (encoder_id, snapshot_id, generation)
VALUES (:encoder_id, :snapshot_id, 1)
ON CONFLICT (encoder_id) DO NOTHING;

-- name: move_head
-- The swap: only from the snapshot that the new one was made from.
UPDATE index_heads
SET snapshot_id = :snapshot_id, generation = generation + 1
WHERE encoder_id = :encoder_id AND snapshot_id = :parent_id;

-- name: add_version
-- The next number of a collection, once for a digest.
INSERT INTO versions (name, number, version_id, digest, created_at)
SELECT :name, COALESCE(MAX(number), 0) + 1, :version_id, :digest, :created_at
FROM versions
WHERE name = :name
ON CONFLICT (name, digest) DO NOTHING;

-- name: get_version_by_digest
-- Grain: one version, or none.
SELECT name, number, version_id, digest, mlflow_run_id, mlflow_url, created_at
FROM versions
WHERE name = :name AND digest = :digest;

-- name: get_version_by_number
-- Grain: one version, or none.
SELECT name, number, version_id, digest, mlflow_run_id, mlflow_url, created_at
FROM versions
WHERE name = :name AND number = :number;

-- name: list_versions
-- Grain: a version. Order: newest first, then by name.
SELECT name, number, version_id, digest, mlflow_run_id, mlflow_url, created_at
FROM versions
ORDER BY created_at DESC, name, number DESC;

-- name: set_version_run
-- Where a version was published.
UPDATE versions
SET mlflow_run_id = :mlflow_run_id, mlflow_url = :mlflow_url
WHERE name = :name AND number = :number;
