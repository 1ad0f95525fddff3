"""Places where copies of kept backups go, as BACKUP_LOCATIONS names them.

`Location` is what the rest of the app uses. It limits the time, puts every kind of error into words, and stores each
site's files in a folder of its own, under the names that they have in BACKUP_ROOT: `site_…/kept/x.zip`. It is built on
a `Client`; there is one for each kind of address:

| address | client |
|---|---|
| `/mnt/nas/babybuddy` | `folder`: a disk, a NAS, a folder that another program synchronises |
| `storage:ALIAS` | `alias`: a storage of the setting STORAGES |
| `s3://KEY:SECRET@BUCKET/PREFIX?endpoint_url=…` | `s3`: Amazon S3, and servers with the same API |
| `sftp://USER:PASSWORD@HOST/PATH` | `sftp` |
| `webdavs://USER:PASSWORD@HOST/PATH` | `webdav`: Nextcloud, for example |

Addresses contain passwords, so no part of them ever appears in a message, a log or a repr.
"""

from .location import Location, location, locations
from .parts import open_parts

__all__ = ["Location", "location", "locations", "open_parts"]
