"""The host's root URLconf with `/backup/` before it; the snippet sets it as ROOT_URLCONF.

Whatever else Django or others look for in a root URLconf (handler400 … handler500 among it) is the host's.
"""

from __future__ import annotations

from importlib import import_module

from django.conf import settings
from django.urls import include, path

_host = import_module(settings.BACKUP_HOST_URLCONF)  # type: ignore[misc]  # the snippet sets it

# The host's patterns side by side with ours, not included from below: i18n_patterns only work at the root.
urlpatterns = [path("backup/", include("backup.urls")), *_host.urlpatterns]


def __getattr__(name: str) -> object:
    return getattr(_host, name)
