"""Brings older backups, and an old `db.sqlite3`, to today's schema, without touching the live database.

`schema` compares migrations; `process` is the parent, which starts the child and waits for it; `worker` is the child.
"""
