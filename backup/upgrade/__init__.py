"""Brings older backups, and an old `db.sqlite3`, to today's schema, without touching the live database.

`schema` compares migrations; `process` is the parent, which starts a child and waits for it; `child` is what every
child has in common, `worker` the one that upgrades, and `sources` what it upgrades: a backup, or a database file.
"""
