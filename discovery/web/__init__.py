"""Pages and their API: what was found, for people; read-only, and only for callers who were let in."""
