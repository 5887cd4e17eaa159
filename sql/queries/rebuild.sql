-- Forget everything, before all of it is entered again from the store in the same transaction.

-- name: clear_records
DELETE FROM records;

-- name: clear_lineage
DELETE FROM lineage;

-- name: clear_names
DELETE FROM names;

-- name: clear_heads
DELETE FROM index_heads;

-- name: clear_versions
DELETE FROM versions;

-- name: clear_standings
DELETE FROM standings;
