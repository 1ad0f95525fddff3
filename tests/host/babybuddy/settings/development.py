"""For looking at it in a browser."""

from .base import *  # noqa: F403

SECRET_KEY = SECRET_KEY or "only-for-development"  # noqa: F405
DEBUG = True
STORAGES["staticfiles"] = {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"}  # noqa: F405
