"""Backups that take care of themselves, without a worker, cron or a table.

| module | what it is for |
|---|---|
| `schedule` | when a backup is due (a pure computation) |
| `retention` | which backups stay, and why (a pure computation) |
| `guard` | which data has become fewer since the backup before; then nothing old is removed |
| `unchanged` | whether a backup holds the same as the one before |
| `turns` | which backup is proved next (a pure computation) |
| `copies` | copies of kept backups in the locations |
| `look` | looks after a request whether a backup is due, and starts the child process that makes it |
| `outlook` | a small file that tells the processes of this machine when the next run is due |
| `run` | makes an automatic backup |
| `photo_copies` | copies of photos in a location |
| `read_back` | reads back what was sent to a location |
| `notices` | tells people and programs when backups begin to fail, and when they work again |
| `status` | the state of automatic backups, for pages, commands and notices |
| `messages` | the messages of these states |

The child is `python -m backup.automatic`. This module imports nothing, since the child sets Django up only then.
"""
