"""Values that Python finds equal, though they are not the same, come back by a restore over existing data, too."""

from itertools import permutations
from zoneinfo import ZoneInfo

import pytest

from backup import services
from backup.presentation.examples import Examples
from backup.proof import Verdict
from tests.support.backups import inspect, restore, rewritten, take
from tests.zoo.models import Specimen

#: Groups of values in which Python finds each equal to each other, field by field.
EQUAL = {
    "json_required": [
        [True, 1, 1.0],
        [False, 0, 0.0, -0.0],
        [{"on": [True, {"k": 0}]}, {"on": [1, {"k": False}]}, {"on": [1.0, {"k": 0.0}]}],
        [{"bb": 1, "a": 2}, {"a": 2, "bb": 1}],
        [[{"bb": 1, "a": [{"y": 0, "x": 0}]}], [{"a": [{"x": 0, "y": 0}], "bb": 1}]],
        [1e16, 10**16],
        [1e22, 10**22],
        [1.5e300, int(1.5e300)],
    ],
    "float": [[0.0, -0.0]],
}
#: (field, value, another one of its group), each of them the content of one specimen.
PAIRS = [
    (field, *pair) for field, groups in EQUAL.items() for values in groups for pair in permutations(values, 2)
]


def held():
    """What the database holds of each pair, exactly."""
    rows = {specimen.text: specimen for specimen in Specimen.objects.all()}
    return {repr(pair): repr(getattr(rows[str(number)], pair[0])) for number, pair in enumerate(PAIRS)}


def make_specimens():
    Specimen.objects.bulk_create(
        Specimen(text=str(number), **{field: value}) for number, (field, value, _other) in enumerate(PAIRS)
    )


def test_over_values_that_are_only_equal(host_db):
    make_specimens()
    before, file = held(), take()
    for number, (field, _value, other) in enumerate(PAIRS):
        Specimen.objects.filter(text=str(number)).update(**{field: other})
    after = held()
    differ = sum(before[pair] != after[pair] for pair in before)
    for clear in (False, True):
        assert inspect(file, clear=clear).changes["zoo.specimen"].changed == differ
    restore(file, clear=False)
    assert held() == before
    assert inspect(file, clear=False).changes["zoo.specimen"].unchanged == len(PAIRS)


def test_the_preview_shows_what_differs_alone(host_db):
    """PostgreSQL orders the keys of JSON, so that an order of the file is no difference."""
    Specimen.objects.create(json={"bb": 1, "a": 2}, json_required={"on": True})
    file = rewritten(
        take(), lambda records: records["zoo.specimen"][0]["fields"].update(json={"bb": 1, "a": 2})
    )
    Specimen.objects.update(json_required={"on": 1})
    plan = inspect(file, clear=False)
    examples = Examples({t.label: t for t in plan.tables}, plan.preview.samples, ZoneInfo("UTC"))
    (example,) = examples.of("zoo.specimen")["changed"]
    assert [(value.name, value.before, value.text) for value in example.values] == [
        ("Json required", "{'on': 1}", "{'on': True}")
    ]


@pytest.fixture
def every_pair(host_db):
    """Two backups of the same records, with all first values and with all others."""
    make_specimens()
    text = take()

    def first(records):
        for record in records["zoo.specimen"]:
            field, value, _other = PAIRS[int(record["fields"]["text"])]
            record["fields"][field] = value

    def second(records):
        for record in records["zoo.specimen"]:
            field, _value, other = PAIRS[int(record["fields"]["text"])]
            record["fields"][field] = other

    return rewritten(text, first), rewritten(text, second)


def test_backups_are_compared_exactly(every_pair):
    changes = services.compare_backups(*every_pair)
    # SQLite, in which they are compared, keeps no sign of a zero in a column of numbers.
    assert changes["zoo.specimen"] == {"added": 0, "changed": len(PAIRS) - 2, "unchanged": 2, "removed": 0}


def test_what_a_database_makes_of_a_value_fails_no_proof(every_pair):
    for file in every_pair:
        assert services.prove_backup(file).verdict == Verdict.PROVED
