"""Servers for the locations, one of each for all tests; a proxy before each, which a test may spoil."""

import contextlib
from types import SimpleNamespace

import pytest

from backup.storage.locations import location
from tests.support import servers


@pytest.fixture(scope="session")
def s3_server():
    with servers.s3_server() as server:
        yield server


@pytest.fixture(scope="session")
def dav_server(tmp_path_factory):
    with servers.dav_server(tmp_path_factory.mktemp("dav") / "root") as server:
        yield server


@pytest.fixture(scope="session")
def tls_dav_server(tmp_path_factory):
    with servers.dav_server(tmp_path_factory.mktemp("tls") / "root", tls=True) as server:
        yield server


@pytest.fixture(scope="session")
def ssh_server(tmp_path_factory):
    with servers.ssh_server(tmp_path_factory.mktemp("ssh") / "root") as server:
        yield server


@pytest.fixture
def s3(s3_server):
    s3_server.reset()
    return s3_server


@pytest.fixture
def dav(dav_server):
    yield dav_server
    dav_server.refuse({})


@pytest.fixture
def proxied():
    """Call it with the port of a server: a proxy before it."""
    with contextlib.ExitStack() as stack:

        def make(port):
            proxy = servers.Proxy(port)
            stack.callback(proxy.close)
            return proxy

        yield make


#: The kinds of locations that are servers.
SERVERS = ["s3", "sftp", "webdav"]


@pytest.fixture
def remote(request, settings, host_db, tmp_path, proxied):
    """Call it with a kind: a location “there” on a server, with a proxy before it that a test may spoil."""

    def make(kind):
        name = tmp_path.name
        server = request.getfixturevalue({"s3": "s3", "sftp": "ssh_server", "webdav": "dav"}[kind])
        proxy = proxied(server.port)
        if kind == "s3":
            address = server.address(prefix=f"/{name}/a%20b", port=proxy.port)
        elif kind == "webdav":
            (server.folder / name).mkdir()
            address = server.address(f"/{name}/a%20b", port=proxy.port)
        else:
            server.knows(proxy.port)
            address = server.address(f"{tmp_path}/a%20b", port=proxy.port)
        settings.BACKUP_LOCATIONS = {"there": address}
        return SimpleNamespace(
            kind=kind, server=server, proxy=proxy, address=address, place=location("there")
        )

    return make
