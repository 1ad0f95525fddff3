"""`python3 -m tests [arguments of pytest]`: all tests, from a fresh clone, on all processors."""

import os
import sys
from pathlib import Path

from tests.bootstrap import enter

TESTS = Path(__file__).resolve().parent

if __name__ == "__main__":
    enter("tests", optional=["postgresql", "mysql"])

    import pytest

    arguments = sys.argv[1:]
    # Name the folder unless a part of it is named: otherwise pytest would run the PATH of --baby-buddy.
    if not any(Path(text.partition("::")[0]).resolve().is_relative_to(TESTS) for text in arguments):
        arguments.append(str(TESTS))
    # One worker more than there are processors, since each waits a lot: for a child process, a server, a browser.
    os.environ.setdefault("PYTEST_XDIST_AUTO_NUM_WORKERS", str((os.cpu_count() or 1) + 1))
    # These come first, so that options of the user override them. With a debugger there is one process only.
    arguments[:0] = ["--numprocesses=logical", "--dist=worksteal"]
    sys.exit(pytest.main(arguments))
