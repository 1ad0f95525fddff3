"""A WebDAV server, in a process of its own: `python -m tests.support.dav_server FOLDER PORT [CERTIFICATE]`.

`FOLDER.json` says which methods get another status than the server's own: `{"PUT": 507}`.
"""

import json
import sys
from pathlib import Path

from cheroot.ssl.builtin import BuiltinSSLAdapter
from cheroot.wsgi import Server
from wsgidav.wsgidav_app import WsgiDAVApp

from tests.support.servers import PASSWORD, USER


def main(folder, port, certificate=None):
    app = WsgiDAVApp(
        {
            "provider_mapping": {"/": folder},
            "simple_dc": {"user_mapping": {"*": {USER: {"password": PASSWORD}}}},
            "http_authenticator": {"accept_basic": True, "accept_digest": False, "default_to_digest": False},
            "verbose": 0,
            "logging": {"enable": False},
        }
    )
    refused = Path(folder).with_suffix(".json")

    def answer(environ, start_response):
        status = json.loads(refused.read_text()).get(environ["REQUEST_METHOD"])
        if not status:
            return app(environ, start_response)
        while environ["wsgi.input"].read(65536):
            pass
        start_response(
            f"{status} As the test wants it", [("Content-Length", "0"), ("Location", "https://x/")]
        )
        return [b""]

    server = Server(("127.0.0.1", int(port)), answer, numthreads=16)
    if certificate:
        server.ssl_adapter = BuiltinSSLAdapter(certificate, certificate)
    server.start()


if __name__ == "__main__":
    main(*sys.argv[1:])
