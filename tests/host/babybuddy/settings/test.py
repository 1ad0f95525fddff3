"""Quick, and without the guards that get in a test's way."""

from .base import *  # noqa: F403

SECRET_KEY = "only-for-tests"
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
STORAGES["staticfiles"] = {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"}  # noqa: F405
WHITENOISE_USE_FINDERS = True

AXES_ENABLED = False
DBSETTINGS_USE_CACHE = False
ENABLE_HOME_ASSISTANT_SUPPORT = True
