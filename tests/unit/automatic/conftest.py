import datetime as dt
from zoneinfo import ZoneInfo

import pytest
from django.core import mail
from django.urls import reverse

from backup import services
from backup.automatic import look, status
from backup.upgrade import process


@pytest.fixture
def nightly(family, settings):
    """A site that makes a backup at half past two each night, in Berlin."""
    settings.BACKUP_SCHEDULE = "30 2 * * *"
    settings.TIME_ZONE = "Europe/Berlin"
    mail.outbox = []
    reverse("backup:index")  # what it imports must not be imported while the clock stands still
    status._mark = (0.0, False)
    family.admin.email = "admin@example.com"
    family.admin.save()
    return family


@pytest.fixture
def quick_proofs(monkeypatch):
    """Proofs only read the whole file, without a child process, where the matter is what follows from a verdict."""

    def read(module, folder, order, reporter):
        with (folder / process.SOURCE).open("rb") as file:
            metadata = services.verify_backup(file)
        return {"records": metadata.total_records, "photos": 0, "photos_known": 0, "left_out": []}

    monkeypatch.setattr(process, "run_child", read)


@pytest.fixture
def at():
    """A moment in Berlin, by its text."""
    return lambda text: dt.datetime.fromisoformat(text).replace(tzinfo=ZoneInfo("Europe/Berlin"))


@pytest.fixture
def watch():
    """What looks after each request, as of a process that was just started."""
    return look.Watch()
