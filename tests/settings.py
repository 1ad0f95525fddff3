"""The test settings of the host that is first on `sys.path`, with this project plugged in by its snippet."""

import os
import tempfile
from pathlib import Path

from babybuddy.settings.test import *  # noqa: F403

# Never beside the host's own data. `conftest.py` gives a fresh folder; the default is for tools that import.
SCRATCH = Path(os.environ.get("BACKUP_TEST_FOLDER") or Path(tempfile.gettempdir(), "babybuddy-backup-tests"))
SCRATCH.mkdir(parents=True, exist_ok=True)
os.environ.setdefault("BACKUP_ROOT", str(SCRATCH / "backups"))
os.environ.setdefault("BACKUP_SCHEDULE", "off")  # no test starts a child by the way
os.environ.setdefault("BACKUP_PROVE", "off")  # it takes a second or two

if not os.environ.get("DATABASE_URL"):
    DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": SCRATCH / "db.sqlite3"}}
if DATABASES["default"]["ENGINE"].endswith("sqlite3"):
    # A file, not memory: several connections and processes use it at once.
    DATABASES["default"]["TEST"] = {"NAME": SCRATCH / "test_db.sqlite3"}

elif worker := os.environ.get("PYTEST_XDIST_WORKER"):
    DATABASES["default"]["TEST"] = {"NAME": f"test_{DATABASES['default']['NAME']}_{worker}"}

MEDIA_ROOT = SCRATCH / "media"
# Reads static files as they are asked for; else it would look through all of them for each test client.
WHITENOISE_AUTOREFRESH = True
# No handlers: what is logged goes up, to pytest in a test, to stderr in a server that a test started. One that hears
# nothing keeps the app from a log of its own.
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "handlers": {"null": {"class": "logging.NullHandler"}},
    "loggers": {"django": {"handlers": []}, "backup": {"handlers": ["null"], "level": "INFO"}},
}

INSTALLED_APPS = [*INSTALLED_APPS, "tests.zoo"]  # noqa: F405
if os.environ.get("BACKUP_TEST_TROUBLE"):  # in child processes only
    INSTALLED_APPS.append("tests.trouble")
INSTALLED_APPS += filter(
    None, os.environ.get("BACKUP_TEST_PLUG_INS", "").split(",")
)  # in child processes only
if os.environ.get("BACKUP_TEST_ZOO_MIGRATIONS"):  # in child processes; a test sets it for its own
    MIGRATION_MODULES = {"zoo": os.environ["BACKUP_TEST_ZOO_MIGRATIONS"]}
SILENCED_SYSTEM_CHECKS = ["models.W036"]  # the zoo has a conditional constraint, which MySQL ignores

snippet = Path(__file__).resolve().parents[1] / "babybuddy_settings_snippet.py"
exec(compile(snippet.read_text(encoding="utf-8"), str(snippet), "exec"))
