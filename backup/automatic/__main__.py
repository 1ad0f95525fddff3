"""The child process that makes an automatic backup if one is due: `python -m backup.automatic`.

It has the settings of the process that started it, runs at a low priority, and ends by itself. Its exit status is 0 or
1 and never another one: some servers take a 3 from any process to mean that one of their workers cannot start.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress

import django

#: Added to the priority number of the process (0 to 19). With 19 it would get no time at all on a busy machine.
NICENESS = 15


def main() -> int:
    with suppress(AttributeError, OSError):
        os.nice(NICENESS)
    django.setup()
    from backup import log
    from backup.automatic import run
    from backup.exceptions import BackupError
    from backup.log import logger

    log.nobody = log.AUTOMATIC
    try:
        with run.time_limit():
            run.run()
    except BackupError:  # already logged, and people were told
        return 1
    except Exception:  # noqa: BLE001  this is the outermost level
        logger.exception("an automatic backup failed")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
