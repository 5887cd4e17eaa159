"""One verb a file: read the store, call core, commit, return a record."""
