"""Names in a file may have megabytes; what is answered has not."""

from backup.exceptions import InvalidRecord, RestoreRefused
from backup.tables import MAX_NAMED
from tests.support.backups import refused, rewritten, take

LONG = "x" * 1_000_000


def test_the_place_of_an_invalid_record(family):
    def change(records):
        records["core.note"] = [{"model": "core.note", "pk": LONG, "fields": {}}]

    error = refused(rewritten(take(), change), InvalidRecord)
    assert len(f"{error}{error.pk}{error.field}") < 1000

    def add(records):
        records["core.child"][0]["fields"][LONG] = 1

    error = refused(rewritten(take(), add), InvalidRecord)
    assert len(f"{error}{error.pk}{error.field}") < 1000


def test_unknown_migrations(family):
    names = ["9" + "x" * 250 + str(number) for number in range(3 * MAX_NAMED // 2)]
    file = rewritten(take(), change_metadata=lambda metadata: metadata["migrations"]["core"].extend(names))
    error = refused(file, RestoreRefused)
    assert len(error.details) == MAX_NAMED + 1
    assert len(str(error)) < 5000
