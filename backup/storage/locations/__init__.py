"""Places where copies of kept backups go, as BACKUP_LOCATIONS names them.

`Location` is what the rest of the app uses. It bounds the time, puts each kind of trouble into words, and keeps each
site's files in a folder of its own, with the names that they have in BACKUP_ROOT: `site_…/kept/x.zip`. What it asks
is a `Client`; there is one for each kind of address:

| address | client |
|---|---|
| `/mnt/nas/babybuddy` | `folder`: a disk, a NAS, a folder that something else takes away |
| `storage:ALIAS` | `alias`: whatever STORAGES says |
| `s3://KEY:SECRET@BUCKET/PREFIX?endpoint_url=…` | `s3`: Amazon's, and what speaks its language |
| `sftp://USER:PASSWORD@HOST/PATH` | `sftp` |
| `webdavs://USER:PASSWORD@HOST/PATH` | `webdav`: Nextcloud |

Addresses hold passwords. None of their parts is in a message, a log or a repr.
"""

from .location import Location, location, locations
from .parts import open_parts

__all__ = ["Location", "location", "locations", "open_parts"]
