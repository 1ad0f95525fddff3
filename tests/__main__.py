"""`python3 -m tests [arguments of pytest]`: all tests, from a fresh clone."""

import sys

from tests.bootstrap import enter

if __name__ == "__main__":
    enter("tests", optional=["postgresql", "mysql"])

    import pytest

    sys.exit(pytest.main(sys.argv[1:]))
