"""Files that stay on the server.

They go through Django's storage API: into the storage `backups` of `STORAGES`, where the project has one (several
machines can share it), else into the folder `BACKUP_ROOT`, which only the server's own user can read. Each site has a
folder of its own in there, `site_…`, named by its database (see `database.memo`). In that lie

| where | what | module |
|---|---|---|
| `staged/OWNER_RANDOM.zip` | an upload between preview and confirmation, and whose it is | `uploads` |
| `staged/OWNER_RANDOM.begin.SIZE`, `….piece.START.END` | an upload in pieces | `uploads` |
| `kept/babybuddy_20261123T143022.123456Z_….zip` | a kept backup: moment (UTC), kind, site, state | `kept` |
| `kept/….json` | the same name: what is known about a kept backup and is not in it | `kept` |
| `photos/CHECKSUM`, `photos/DIGEST_KEYID.zip` | a photo of kept backups, in clear or encrypted | `photos` |
| `safety/before_20261123T143022.123456Z_STATE.zip` | a safety copy of version 0.1 | `kept` |
| `restores/RANDOM.json` | the progress of a restore, and how it ended | `state` |
| `placed/20261123T143022.123456Z_RANDOM.json` | the photos that a restore put where the host has its own | `placed` |
| `last/backup.json` | when the last backup was taken, and by whom | `state` |
| `last/automatic.json` | how the last automatic backup went | `state` |
| `folders.json`, beside the folders of the sites | which folders of BACKUP_LOCATIONS have a marker | `locations` |
| `keys.json`, beside the folders of the sites | the keys of encrypted backups | `keys` |
| `.NAME.RANDOM.babybuddy.part` beside each | a file that is being written | `atomic` |

The last restore (what undo brings back, and what is not done twice) is remembered in the database itself.
`files` is what the other modules stand on. What `manage.py backup` makes lies where it was told to, by default in
`BACKUP_ROOT` itself.
"""
