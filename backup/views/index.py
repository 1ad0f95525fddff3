"""The front page's view."""

from __future__ import annotations

from django.http import HttpRequest, JsonResponse
from django.http.response import HttpResponseBase

from backup import access, services
from backup.automatic.status import status
from backup.conf import if_right
from backup.forms import RestoreForm

from .answers import page
from .front_page import front_page, last_backup
from .guard import endpoint


@endpoint("GET", "HEAD")
def index(request: HttpRequest) -> HttpResponseBase:
    """Show the front page; as JSON the upload limit, the backups that the server keeps, and the status."""
    if not access.wants_json(request):
        if "last_backup" in request.GET:
            return page(request, "last_backup", last_backup())
        return front_page(request, RestoreForm())
    return JsonResponse(
        {
            "max_upload_size": if_right("max_upload_size", None),
            "backups": [backup.as_json() for backup in services.kept_backups()],
            "status": status().as_json(),
        }
    )
