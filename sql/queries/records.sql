-- name: add_record
-- Enters a record once; a second writer changes nothing. Sequence is the order of entry.
INSERT INTO records (id, stage, sequence, created_at, body)
SELECT :id, :stage, COALESCE(MAX(sequence), 0) + 1, :created_at, :body
FROM records
WHERE TRUE
ON CONFLICT (id) DO NOTHING;

-- name: add_lineage
-- One edge from a record to one that it was made from; entered once.
INSERT INTO lineage (child_id, parent_id)
VALUES (:child_id, :parent_id)
ON CONFLICT (child_id, parent_id) DO NOTHING;

-- name: get_record
-- Grain: one record, or none.
SELECT body
FROM records
WHERE id = :id;

-- name: list_records
-- Grain: a record. Order: newest first.
SELECT body
FROM records
WHERE stage = :stage
ORDER BY sequence DESC
LIMIT :limit;

-- name: list_ids
-- Grain: a record. Order: as they were entered.
SELECT stage, id
FROM records
ORDER BY sequence;

-- name: find_by_prefix
-- Grain: a record whose id starts with the prefix; two rows are enough to call it ambiguous.
SELECT id, body
FROM records
WHERE id >= :low AND id < :high
ORDER BY id
LIMIT 2;

-- name: get_parents
-- Grain: an edge. Order: by id. Records that this one was made from.
SELECT parent_id
FROM lineage
WHERE child_id = :id
ORDER BY parent_id;

-- name: get_children
-- Grain: an edge. Order: by id. Records made from this one.
SELECT child_id
FROM lineage
WHERE parent_id = :id
ORDER BY child_id;

-- name: list_lineage
-- Grain: an edge. Order: by child, then by parent. The edges that come after one.
SELECT child_id, parent_id
FROM lineage
WHERE (child_id, parent_id) > (:child_id, :parent_id)
ORDER BY child_id, parent_id
LIMIT :limit;

-- name: set_name
-- A name of one kind points at the record it was given last, which is the one of the highest number.
INSERT INTO names (kind, name, record_id, number)
VALUES (:kind, :name, :record_id, :number)
ON CONFLICT (kind, name) DO UPDATE SET record_id = excluded.record_id, number = excluded.number
WHERE names.number < excluded.number;

-- name: get_name
-- Grain: one name, or none.
SELECT kind, name, record_id, number
FROM names
WHERE kind = :kind AND name = :name;

-- name: list_names
-- Grain: a name. Order: by kind, then by name.
SELECT kind, name, record_id, number
FROM names
ORDER BY kind, name;
