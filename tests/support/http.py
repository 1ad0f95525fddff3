"""Calls the views as browsers and scripts do: URLs, uploads, and the content of answers."""

import io
import json
import re

from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client
from django.urls import reverse

from backup import services
from backup.conf import conf
from tests.support.filling import token_key

#: The name of a kept backup that does not exist.
NOTHING = "babybuddy_20261123T143022.123456Z_manual_0123456789ab_0123456789ABCDEF.zip"


def url(name, *arguments):
    """Return a URL of the app. By default, the kept backup or upload in it is one that does not exist."""
    default = {
        "preview": ["nothing"],
        "question": ["nothing"],
        "progress": ["nothing"],
        "preview_photo": ["nothing", "0" * 64],
        "upload_piece": ["nothing"],
        "kept": [NOTHING],
        "kept_delete": [NOTHING],
        "kept_label": [NOTHING],
        "kept_pin": [NOTHING],
        "kept_prove": [NOTHING],
        "test_location": ["nothing"],
    }
    return reverse(f"backup:{name}", args=arguments or default.get(name, []))


def script(user):
    """Return a test client that sends the API token of a user."""
    return Client(headers={"Authorization": f"Token {token_key(user.username)}"})


def backup_bytes():
    file = io.BytesIO()
    services.create_backup(file)
    return file.getvalue()


def upload(data=None, name="backup.zip"):
    return SimpleUploadedFile(name, backup_bytes() if data is None else data)


def staged():
    """Return the files of uploads that wait for confirmation."""
    return list(conf.root.glob("*/staged/*"))


def error_of(response):
    return json.loads(response.content)["error"]


def hidden(response, action):
    """Return the hidden fields of the form with this action, except for the CSRF token."""
    page = response.content.decode()
    form = page.split(f'action="{url(action)}"')[1].split("</form>")[0]
    return dict(re.findall(r'type="hidden" name="(upload|clear_existing_data)" value="([^"]*)"', form))


#: The size of a small screen.
PHONE = {"width": 390, "height": 844}


def signed_in(context, server, user):
    """Sign a user in to a browser of Playwright. `context`: its window; `server`: the URL of the site."""
    client = Client()
    client.force_login(user)
    context.add_cookies([{"name": "sessionid", "value": client.cookies["sessionid"].value, "url": server}])
