"""Which cases of a table every run tries, and which only a run of all: those that show again, elsewhere, what others
show, as each language at each width does, and each older version."""

import os

import pytest

#: Whether all cases are to run, as in CI.
ALL = os.environ.get("BACKUP_TEST_ALL") == "1"

_more = pytest.mark.skipif(not ALL, reason="one more of its kind; BACKUP_TEST_ALL=1 runs it, as CI does")


def again(*values, **options):
    """A case of `parametrize` that only a run of all tries. `options`: those of `pytest.param`."""
    return pytest.param(*values, marks=_more, **options)
