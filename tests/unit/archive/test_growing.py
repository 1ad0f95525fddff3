"""Records that are read while they are written."""

import pytest

from backup.archive import GrowingArchive, GrowingWriter, Limits, Metadata
from backup.conf import aware_now
from backup.exceptions import InvalidBackup, StorageFailed, TooLarge

LABELS = {"core.child": 3, "core.note": 40_000, "core.tag": 0}


def lines(label, first, count):
    return b",\n".join(
        b'{"model":"%b","pk":%d,"fields":{"note":"%b"}}' % (label.encode(), number, b"x" * 40)
        for number in range(first, first + count)
    )


def batches(label, count):
    return [(1000, lines(label, n, min(1000, count - n + 1))) for n in range(1, count + 1, 1000)]


@pytest.fixture
def grown(tmp_path):
    """Opens what was written, with the messages of its writer as they came; `limits`: of the reader."""
    path = tmp_path / "growing"
    said = []
    with path.open("wb") as target, GrowingWriter(target, lambda **message: said.append(message)) as writer:
        writer.begin(Metadata(aware_now()), LABELS)
        for label, count in LABELS.items():
            writer.add(label, batches(label, count))
    metadata = said.pop(0)["metadata"]
    files = []

    def make(messages=None, **limits):
        files.append(path.open("rb"))
        messages = iter(said) if messages is None else messages
        return GrowingArchive(files[-1], metadata, messages, Limits(**limits))

    make.path, make.said = path, said
    yield make
    for file in files:
        file.close()


def read(archive, *labels):
    """The keys of these models' records."""
    return [record["pk"] for label in labels for records in archive.records(label) for record in records]


@pytest.mark.parametrize("order", [[*LABELS], [*LABELS][::-1]])
def test_all_records_in_any_order_and_again(grown, order):
    assert len(grown.said) > len(LABELS)  # in pieces
    with grown() as archive:
        for label in [*order, *order]:
            assert read(archive, label) == [*range(1, LABELS[label] + 1)]


def test_nothing_is_read_before_it_is_there(grown):
    taken = []

    def messages():
        for message in grown.said:
            taken.append(message)
            yield message

    with grown(messages()) as archive:
        next(archive.lines("core.note"))
    assert 0 < len(taken) < len(grown.said) - 1


def test_batches_are_the_same_when_they_are_read_again(grown):
    """A batch whose rows the database refuses is read again, by its number."""
    with grown() as archive:
        first, again = ([lines.count for lines in archive.lines("core.note")] for _time in range(2))
    assert sum(first) == LABELS["core.note"]
    assert first == again


def test_a_file_that_ends_early(grown):
    grown.path.write_bytes(grown.path.read_bytes()[:-100])
    with grown() as archive, pytest.raises(InvalidBackup):
        read(archive, *LABELS)


def test_messages_that_end_early(grown):
    with grown(iter(grown.said[:2])) as archive, pytest.raises(InvalidBackup):
        read(archive, "core.note")


def test_more_than_may_be(grown):
    with grown(uncompressed=100_000) as archive, pytest.raises(TooLarge):
        read(archive, "core.note")


def failing(messages):
    yield from messages
    raise StorageFailed("the disk is full")


def test_an_error_at_the_end_is_raised_though_all_was_read(grown):
    with grown(failing(grown.said)) as archive, pytest.raises(StorageFailed), archive.completed():
        read(archive, *LABELS)


def test_it_comes_before_that_of_the_reader(grown):
    with grown(failing(grown.said)) as archive, pytest.raises(StorageFailed), archive.completed():
        raise InvalidBackup("not right")
