"""Files that stay on the server.

They go through Django's storage API: into the storage `backups` of `STORAGES`, where the project has one (several
machines can share it), else into the folder `BACKUP_ROOT`, which only the server's own user can read.

| where | what | module |
|---|---|---|
| `staged/RANDOM.zip` | an upload, between preview and confirmation; its signed id names its owner | `uploads` |
| `safety/before_20261123T143022.123456Z.zip` | a safety copy, named by its moment (UTC) | `kept` |
| `restores/RANDOM.json` | the progress of a restore, and how it ended | `state` |
| `last/restore.json` | the last restore: what undo brings back, and what is not done twice | `state` |
| `last/backup.json` | when the last backup was taken, and by whom | `state` |
| `.NAME.RANDOM.babybuddy.part` beside each | a file that is being written | `atomic` |

`files` is what the others stand on. What `manage.py backup` makes lies where it was told to, by default in
`BACKUP_ROOT` itself.
"""
