"""Files that stay on the server.

They go through Django's storage API: into the storage `backups` of `STORAGES` if the project has one (several machines
can share it), else into the folder `BACKUP_ROOT`, which only the server's own user can read. Each site has a folder of
its own there, `site_…`, named by the id in its database (see `database.memo`). It contains:

| file | what it is | module |
|---|---|---|
| `staged/OWNER_RANDOM.zip` | an upload between preview and confirmation, with its owner | `uploads` |
| `staged/OWNER_RANDOM.begin.SIZE`, `….piece.START.END` | an upload in pieces | `uploads` |
| `kept/babybuddy_20261123T143022.123456Z_….zip` | a kept backup: moment (UTC), kind, site, state | `kept` |
| `kept/….json`, with the name of the backup | facts about a kept backup that are not in it | `facts` |
| `photos/CHECKSUM`, `photos/DIGEST_KEYID.zip` | a photo of kept backups, unencrypted or encrypted | `photos` |
| `safety/before_20261123T143022.123456Z_STATE.zip` | a safety copy of version 0.1 | `kept` |
| `restores/RANDOM.json` | the progress of a restore, and how it ended | `state` |
| `restores/RANDOM.json`, for a moment | what shows that a location is this very place | `locations` |
| `placed/20261123T143022.123456Z_RANDOM.json` | the photos that a restore put where the host has its own | `placed` |
| `last/backup.json` | when the last backup was made, and by whom | `state` |
| `last/automatic.json` | how the last automatic backup went | `state` |
| `last/locations.json` | the state of the locations, and which copies are there | `elsewhere` |
| `folders.json`, beside the folders of the sites | which folders of BACKUP_LOCATIONS have a marker | `locations` |
| `keys.json`, beside the folders of the sites | the keys of encrypted backups | `keys` |
| `keys.lock`, beside it | nothing: who writes the keys locks it | `files` |
| `automatic_DIGEST.json`, beside them | when the next automatic backup is due | `automatic.outlook` |
| `backup.log`, `backup.log.1`, beside them | the log, if the host writes none | `log_file` |
| `.NAME.RANDOM.babybuddy.part` beside each | a file that is being written | `atomic` |

Other files are beside an SQLite database, in the folder for temporary files, and in the folders of BACKUP_LOCATIONS:

| file | what it is | module |
|---|---|---|
| `DATABASE-restoring`, `DATABASE-automatic`, `DATABASE-noting` | nothing: they are locked | `database.lock_file` |
| `DATABASE-anew/` | a new database, until it takes the place of a damaged one | `rescue` |
| `DATABASE-damaged-20261123T143022Z` | a damaged database that was replaced | `rescue` |
| `babybuddy-backup-UID-DIGEST.json` | `automatic_DIGEST.json`, if that cannot be written | `automatic.outlook` |
| `babybuddy-backup.txt` | the marker of a folder, which shows that it is mounted | `locations.folder` |

The last restore (which undo needs, and which must not be repeated by accident) is noted in the database itself. The
other modules are built on `files`. `manage.py backup` writes to the path that it is given, by default into
`BACKUP_ROOT` itself.
"""
