"""Files that stay on the server.

They go through Django's storage API: into the storage `backups` of `STORAGES`, where the project has one (several
machines can share it), else into the folder `BACKUP_ROOT`, which only the server's own user can read.

| where | what | module |
|---|---|---|
| `staged/RANDOM.zip` | an upload, between preview and confirmation; its signed id names its owner | `uploads` |
| `safety/before_20261123T143022.123456Z_1A2B3C4D.zip` | a safety copy, named by moment (UTC) and state | `kept` |
| `restores/RANDOM.json` | the progress of a restore, and how it ended | `state` |
| `last/backup.json` | when the last backup was taken, and by whom | `state` |
| `.NAME.RANDOM.babybuddy.part` beside each | a file that is being written | `atomic` |

The last restore (what undo brings back, and what is not done twice) is remembered in the database itself, see `state`.
`files` is what the others stand on. What `manage.py backup` makes lies where it was told to, by default in
`BACKUP_ROOT` itself.
"""
