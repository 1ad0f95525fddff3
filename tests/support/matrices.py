"""Decides which cases of a parametrized test every run tries, and which only a full run.

Cases for a full run show again what others have shown: each language at each width, each older version.
"""

import os

import pytest

#: Whether all cases run, as in CI each week.
ALL = os.environ.get("BACKUP_TEST_ALL") == "1"

#: A test that only a full run runs.
full_run_only = pytest.mark.skipif(
    not ALL, reason="one more of its kind; BACKUP_TEST_ALL=1 runs it, as CI does each week"
)


def again(*values, **options):
    """Return a case of `parametrize` that only a full run tries. `options`: those of `pytest.param`."""
    return pytest.param(*values, marks=full_run_only, **options)
