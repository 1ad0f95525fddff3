"""Runs last, and makes trouble of the kind that the environment variable BACKUP_TEST_TROUBLE names."""

import json
import os
import signal
import time

from django.db import migrations


def make_trouble(apps, schema_editor):
    trouble, _, file = os.environ["BACKUP_TEST_TROUBLE"].partition(":")
    if trouble == "fail":
        raise ValueError("out of order")
    if trouble == "fail once" and not os.path.exists(file):
        open(file, "w").close()
        raise ValueError("out of order")
    if trouble == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    while trouble == "go on for ever":
        print("and on", flush=True)
        time.sleep(0.1)
    if trouble == "take all memory":
        bytearray(8 * 1024**3)
    if trouble == "look around":
        look_around(file)


def look_around(file):
    """What a migration finds that wants to reach the live site."""
    from django.conf import settings
    from django.contrib.auth.models import Permission
    from django.core.cache import cache
    from django.core.files.base import ContentFile
    from django.core.files.storage import default_storage
    from django.db import connection, connections

    cache.set("core.child.count", 4711)
    default_storage.save("left behind.txt", ContentFile(b"x"))
    found = {
        "aliases": list(connections),
        "database": str(connection.settings_dict["NAME"]),
        "settings": str(settings.DATABASES["default"]["NAME"]),
        "environment": os.environ["DATABASE_URL"],
        "folder": os.getcwd(),
        "permissions": Permission.objects.filter(codename="delete_weight").count(),
        "input": os.read(0, 1).decode(),
    }
    print("a word for nobody", flush=True)
    with open(file, "w") as out:
        json.dump(found, out)


class Migration(migrations.Migration):
    initial = True
    dependencies = [("core", "0036_medication"), ("babybuddy", "0035_alter_settings_language")]
    operations = [migrations.RunPython(make_trouble)]
