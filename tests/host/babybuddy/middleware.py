"""Middleware that behaves as Baby Buddy's does, its flaws included."""

import logging
import os
import time
from contextlib import suppress
from urllib.parse import urlsplit

from django.conf import settings
from django.contrib.auth.middleware import RemoteUserMiddleware
from django.urls import get_script_prefix, set_script_prefix
from django.utils import timezone, translation


class HomeAssistant:
    """Makes the site work under the path of Home Assistant's ingress proxy."""

    def __init__(self, get_response):
        self.get_response = get_response
        self.prefix = get_script_prefix()

    def __call__(self, request):
        source = request.headers.get("X-Hass-Source")
        enabled = settings.ENABLE_HOME_ASSISTANT_SUPPORT
        request.is_homeassistant_ingress_request = enabled and source == "core.ingress"
        path = request.headers.get("X-Ingress-Path")
        if not (request.is_homeassistant_ingress_request and path):
            if enabled:
                set_script_prefix(self.prefix)  # whatever prefix the server had set
            return self.get_response(request)

        path = "/" + path.lstrip("/")
        set_script_prefix(path)
        response = self.get_response(request)
        if location := response.get("Location"):
            if not urlsplit(location).path.startswith(path):
                response["Location"] = path + location
        elif response.streaming:
            logging.error("HomeAssistant: a streaming response is not supported.")
        elif response.get("Content-Type", "").lower().startswith("text/html"):
            page = response.content.decode()
            for url in (settings.STATIC_URL, settings.MEDIA_URL):
                url = "/" + url.strip("/")
                page = page.replace(f'"{url}', f'"{path}{url}').replace(f"'{url}", f"'{path}{url}")
            response.content = page.encode()
        return response


class RollingSessionMiddleware:
    """Renews a session that is in use, at most once in ROLLING_SESSION_REFRESH seconds."""

    def __init__(self, get_response):
        self.get_response = get_response

    def __call__(self, request):
        if request.session.keys():
            renewed = request.session.get("session_refresh", 0)
            if time.time() - renewed > settings.ROLLING_SESSION_REFRESH:
                request.session["session_refresh"] = int(time.time())
                if renewed:
                    request.session.set_expiry(settings.SESSION_COOKIE_AGE)
        return self.get_response(request)


class UserTimezoneMiddleware:
    """Activates the user's time zone, never deactivates it; an unknown one is no ValueError, hence a 500."""

    def __init__(self, get_response):
        self.get_response = get_response

    def __call__(self, request):
        if hasattr(request.user, "settings") and request.user.settings.timezone:
            with suppress(ValueError):
                timezone.activate(request.user.settings.timezone)
        return self.get_response(request)


class UserLanguageMiddleware:
    """Answers in the language of the user's settings."""

    def __init__(self, get_response):
        self.get_response = get_response

    def __call__(self, request):
        if hasattr(request.user, "settings") and request.user.settings.language:
            translation.activate(request.user.settings.language)
        response = self.get_response(request)
        translation.deactivate()
        return response


class CustomRemoteUser(RemoteUserMiddleware):
    """Signs in whomever the reverse proxy names, on every path, and creates unknown users."""

    header = os.environ.get("PROXY_HEADER", "HTTP_REMOTE_USER")
