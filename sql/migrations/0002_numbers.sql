-- What may be said again is numbered, as in the store's journal: the highest number stands, whichever process enters it last.
ALTER TABLE names ADD COLUMN number BIGINT NOT NULL DEFAULT 0;

ALTER TABLE versions ADD COLUMN run_number BIGINT NOT NULL DEFAULT 0;

-- Children are asked for in the order of their ids.
DROP INDEX lineage_by_parent;

CREATE INDEX lineage_by_parent ON lineage (parent_id, child_id);
