"""The host's root URLconf, with `/backup/` added. The settings snippet makes it ROOT_URLCONF.

All other names that Django or others look for in a root URLconf (`handler400` … `handler500`) are the host's.
"""

from __future__ import annotations

from importlib import import_module

from django.conf import settings
from django.urls import include, path

_host = import_module(settings.BACKUP_HOST_URLCONF)  # type: ignore[misc]  # the snippet sets it

# The host's patterns are listed beside ours instead of included, since i18n_patterns only work at the root.
urlpatterns = [path("backup/", include("backup.urls")), *_host.urlpatterns]


def __getattr__(name: str) -> object:
    return getattr(_host, name)
