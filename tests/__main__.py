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
    # The folder is named, unless a part of it is: else pytest would take the PATH of --baby-buddy for what to run.
    if not any(Path(text.partition("::")[0]).resolve().is_relative_to(TESTS) for text in arguments):
        arguments.append(str(TESTS))
    # One process more than there are processors, since each waits a lot: for a child process, a server, a browser.
    os.environ.setdefault("PYTEST_XDIST_AUTO_NUM_WORKERS", str((os.cpu_count() or 1) + 1))
    # First, so that who names a number of processes gets that. A debugger gets one.
    arguments[:0] = ["--numprocesses=logical", "--dist=worksteal"]
    sys.exit(pytest.main(arguments))
