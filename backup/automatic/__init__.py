"""Backups that take care of themselves, without a worker, cron or a table.

| module | what it is for |
|---|---|
| `schedule` | when a backup is due (a pure computation) |
| `retention` | which backups stay, and why (a pure computation) |
| `guard` | what is fewer than in the backup before, so that nothing good is removed |
| `unchanged` | whether a backup holds the same as the one before |
| `turns` | which backup is proved next (a pure computation) |
| `prover` | the child process that proves a backup |
| `copies` | copies of kept backups in the locations |
| `look` | after a request: whether a backup is due, and the child process that makes it |
| `run` | making one |
| `notices` | who is told, when things begin to go wrong or are right again |
| `status` | how things are |

The child is `python -m backup.automatic`. This module imports nothing, since the child sets Django up only then.
"""
