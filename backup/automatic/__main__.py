"""The child process that makes an automatic backup if one is due: `python -m backup.automatic`.

It has the settings of the process that started it, works when nobody else wants the processor, and ends by itself. Its
exit status is 0 or 1, never another one: some servers take the 3 of any process for that of a worker that cannot start.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress

import django

#: Of 19 steps; the last one gets no time at all on a busy machine.
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
    except BackupError:  # logged already, and told
        return 1
    except Exception:  # noqa: BLE001  this is the outermost level
        logger.exception("an automatic backup failed")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
