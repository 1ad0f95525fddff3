import datetime as dt
from zoneinfo import ZoneInfo

import pytest
from django.core import mail
from django.urls import reverse

from backup.automatic import look, status


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
def at():
    """A moment in Berlin, by its text."""
    return lambda text: dt.datetime.fromisoformat(text).replace(tzinfo=ZoneInfo("Europe/Berlin"))


@pytest.fixture
def watch():
    """What looks after each request, as of a process that was just started."""
    return look.Watch()
