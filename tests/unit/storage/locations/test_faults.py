"""Each kind of trouble of a location is told apart, in words of its own, and none of them says what is secret."""

import errno
import gzip
import importlib
import io
import logging
import socket
import subprocess
import sys
import threading
import time
import traceback
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import quote

import pytest
from django.core.files.storage import InMemoryStorage, Storage

from backup import exceptions
from backup.database.memo import site_id
from backup.exceptions import (
    CannotDelete,
    CannotList,
    CannotRead,
    Denied,
    Full,
    LibraryMissing,
    LocationFailed,
    NoSuchLocation,
    NotVerified,
    Slow,
    StorageFailed,
    Unreachable,
    WrongAddress,
)
from backup.storage.locations import Location, location
from tests.support import servers
from tests.support.servers import PASSWORD, USER

from .conftest import SERVERS

MIB = 1024 * 1024
#: The module; the package has a function of the same name.
asking = importlib.import_module("backup.storage.locations.location")


def acts(place):
    """All that can be asked of a location."""
    return {
        "names": place.names,
        "sites": place.other_sites,
        "send": lambda: place.send("kept/a.zip", io.BytesIO(b"a")),
        "fetch": lambda: place.fetch("kept/a.zip"),
        "part": lambda: place.read_part("kept/a.zip", 0, 1),
        "size": lambda: place.size("kept/a.zip"),
        "delete": lambda: place.delete("kept/a.zip"),
        "test": place.test,
    }


@pytest.fixture
def trouble(caplog, settings):
    """Call it with an act and the error that it must raise. Nothing of the address may be said anywhere."""
    caplog.set_level(logging.DEBUG, "backup")
    caplog.set_level(logging.INFO)

    def check(act, kind, text="", secrets=()):
        with pytest.raises(LocationFailed) as caught:
            act()
        error = caught.value
        assert type(error) is kind, error
        assert text in error.message
        assert error.message.startswith("Location “")
        assert error.status == 507
        shown = "".join(traceback.format_exception(error)) + repr(error) + str(error) + logged()
        for address in settings.BACKUP_LOCATIONS.values():
            for secret in [*parts(address), *secrets]:
                assert secret not in shown
        return error

    def logged():
        mine = ("backup", "httpx", "httpcore", "paramiko", "boto", "urllib3", "root")
        return "".join(record.getMessage() for record in caplog.records if record.name.startswith(mine))

    return check


def parts(address):
    """What of an address must not be seen. The tests' own paths and words such as `backups` are in any traceback."""
    credentials = address.partition("://")[2].rpartition("@")[0]
    found = {*credentials.split(":"), PASSWORD, address, "127.0.0.1:"}
    return {part for part in found if len(part) > 4 and part != USER}


@pytest.fixture(params=SERVERS)
def there(request, remote):
    return remote(request.param)


@pytest.mark.parametrize("act", ["names", "sites", "send", "fetch", "part", "size", "delete", "test"])
def test_down(there, trouble, act):
    there.proxy.is_down = True
    trouble(acts(there.place)[act], Unreachable, "cannot be reached")
    there.proxy.is_down = False
    there.place.send("kept/a.zip", io.BytesIO(b"a"))
    there.proxy.close()
    trouble(acts(location("there"))[act], Unreachable)


def test_up_again(there, trouble):
    """The same object goes on when its connection was cut meanwhile."""
    there.place.send("kept/a.zip", io.BytesIO(b"a"))
    there.proxy.cut()
    assert there.place.names() == ["a.zip"]
    there.proxy.cut()
    there.place.send("kept/b.zip", io.BytesIO(b"b"))
    assert there.place.names() == ["a.zip", "b.zip"]


def test_slow(there, trouble, monkeypatch):
    """It is given up after a time, however long the library would wait, and works when the server does again."""
    there.place.send("kept/a.zip", io.BytesIO(b"a"))
    monkeypatch.setattr(asking, "ANSWER", 0.3)
    monkeypatch.setattr(asking, "STALLED", 0.3)
    there.proxy.bad(hangs=True)
    for act in acts(there.place).values():
        trouble(act, Slow, "in time")
    there.proxy.limit = None
    monkeypatch.undo()
    # A deletion that hung may arrive after all, so another file shows that all is well again.
    place = location("there")
    place.send("kept/later.zip", io.BytesIO(b"later"))
    assert "later.zip" in place.names()


@pytest.mark.parametrize("hangs", [False, True], ids=["cut", "hangs"])
def test_in_the_middle_of_sending(there, trouble, hangs, monkeypatch):
    there.place.send("kept/b.zip", io.BytesIO(b"before"))
    if hangs:
        monkeypatch.setattr(asking, "STALLED", 0.5)
    for name in ("kept/a.zip", "kept/b.zip"):
        there.proxy.bad(3 * MIB, hangs=hangs)
        trouble(
            lambda name=name: there.place.send(name, io.BytesIO(bytes(20 * MIB))),
            Slow if hangs else Unreachable,
        )
    there.proxy.limit = None
    monkeypatch.undo()
    # What hung may arrive after all, once it goes on; but then whole, and never under its name before.
    assert {*there.place.names()} in ([{"b.zip"}, {"a.zip", "b.zip"}] if hangs else [{"b.zip"}])
    with there.place.fetch("kept/b.zip") as file:
        assert file.read() in ([b"before", bytes(20 * MIB)] if hangs else [b"before"])
    there.place.send("kept/a.zip", io.BytesIO(bytes(20 * MIB)))
    assert there.place.size("kept/a.zip") == 20 * MIB


@pytest.mark.parametrize("hangs", [False, True], ids=["cut", "hangs"])
def test_in_the_middle_of_fetching(there, trouble, hangs, monkeypatch):
    there.place.send("kept/a.zip", io.BytesIO(bytes(20 * MIB)))
    if hangs:
        monkeypatch.setattr(asking, "STALLED", 0.5)
    there.proxy.bad(3 * MIB, hangs=hangs, towards_client=True)
    trouble(lambda: there.place.fetch("kept/a.zip"), Slow if hangs else Unreachable)
    there.proxy.limit = None
    monkeypatch.undo()
    with there.place.fetch("kept/a.zip") as file:
        assert file.read() == bytes(20 * MIB)


@contextmanager
def small_temporary_folder(tmp_path, monkeypatch):
    with small_disk(tmp_path) as folder:
        monkeypatch.setattr("tempfile.tempdir", str(folder))
        yield folder


def test_no_room_on_this_machine(there, tmp_path, monkeypatch):
    """What is fetched has no room here: that is not the location's trouble, and not said to be."""
    there.place.send("kept/large.zip", io.BytesIO(bytes(4 * MIB)))
    there.place.send("kept/small.zip", io.BytesIO(bytes(100)))  # written when it is complete only
    with small_temporary_folder(tmp_path, monkeypatch) as folder:
        with pytest.raises(StorageFailed, match="The server has no room") as caught:
            there.place.fetch("kept/large.zip")
        assert type(caught.value) is StorageFailed
        (folder / "full").write_bytes(bytes(MIB))
        with pytest.raises(StorageFailed, match="The server has no room") as caught:
            there.place.fetch("kept/small.zip")
        assert type(caught.value) is StorageFailed
    assert there.place.names() == ["large.zip", "small.zip"]


def test_a_test_is_short(there, monkeypatch):
    """Somebody waits for it, so each of its steps has the time of an answer, not that of a file."""
    seconds, bounded = [], asking.bounded
    monkeypatch.setattr(
        asking, "bounded", lambda work, most, *_: (seconds.append(most), bounded(work, most))[1]
    )
    there.place.test()
    assert {*seconds} == {asking.ANSWER}


def test_a_disk_that_breaks(host_db, settings, trouble, monkeypatch, tmp_path):
    settings.BACKUP_LOCATIONS = {"there": str(tmp_path)}
    place = location("there")

    def breaks(_client, _folder, _activity):
        raise OSError(errno.EIO, "")

    monkeypatch.setattr("backup.storage.locations.folder.Folder.sizes", breaks)
    trouble(place.names, LocationFailed, "Check its disk")


@contextmanager
def sends_all(status=200):
    """A server that does not know parts of files, and whose files have no end. Yields its port, and what it sent."""
    sent = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(status)
            self.send_header("Content-Length", str(2**40))
            if status == 206:
                self.send_header("Content-Range", f"bytes {3 * MIB}-{2**40}/{2**41}")
            self.end_headers()
            try:
                for number in range(2**20):
                    self.wfile.write(bytes([number % 256]) * MIB)
                    sent.append(MIB)
                    assert len(sent) < 300
            except (OSError, AssertionError):
                self.close_connection = True

        def log_message(self, *args):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_address[1], sent
        server.shutdown()


over_http = pytest.mark.parametrize(
    "address",
    [
        "webdav://family:secret@127.0.0.1:{port}/nas",
        "s3://AKIA:secret@b?endpoint_url=http://127.0.0.1:{port}",
    ],
    ids=["webdav", "s3"],
)


@pytest.mark.parametrize("status", [200, 206])
@over_http
def test_a_server_that_sends_more_than_was_asked_for(s3_at, address, status):
    """No more than the part is held, or waited for."""
    with sends_all(status) as (port, sent):
        place = s3_at(address.format(port=port))
        place.read_part("kept/a.zip", 0, 1)  # its library is loaded now
        sent.clear()
        tracemalloc.start()
        try:
            part = place.read_part("kept/a.zip", 3 * MIB - 2, 5)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert part == (b"\2\2\3\3\3" if status == 200 else bytes(5))
        assert len(sent) < 300
        assert peak < 12 * MIB  # of which one MiB is the server's


@over_http
def test_a_file_without_end(s3_at, trouble, settings, address):
    """No more of it takes room on the disk than a backup may have."""
    settings.BACKUP_MAX_UNCOMPRESSED_SIZE, settings.BACKUP_MAX_PHOTOS = MIB, 10
    with sends_all() as (port, sent):
        trouble(acts(s3_at(address.format(port=port)))["fetch"], LocationFailed, "something else")
        assert len(sent) < 50


class Entry:
    """A file as paramiko tells of it."""

    filename, st_mode, st_size = "x", 0o100600, 1


@pytest.mark.parametrize("kind", ["s3", "webdav", "sftp", "sftp without names"])
def test_a_list_that_nobody_waits_for_any_more(s3_at, trouble, monkeypatch, remote, kind):
    """A server that sends names without end, slowly: the thread that reads them ends as soon as it is given up."""
    sent = []

    def page(number):
        sent.append(number)
        time.sleep(0.02)
        assert number < 1000

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            number = len(sent)
            page(number)
            body = (
                "<ListBucketResult><IsTruncated>true</IsTruncated>"
                f"<NextContinuationToken>{number}</NextContinuationToken>"
                f"<Contents><Key>site_1/kept/{number}</Key></Contents></ListBucketResult>"
            ).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_PROPFIND(self):
            self.protocol_version = "HTTP/1.0"
            self.send_response(207)
            self.end_headers()
            self.wfile.write(b'<d:multistatus xmlns:d="DAV:">')
            entry = b"<d:response><d:href>/nas/site_1/kept/x</d:href></d:response>"
            for number in range(1000):
                page(number)
                self.wfile.write(entry * (MIB // 4 // len(entry) + 1))

        def log_message(self, *args):
            pass

    def entries(sftp, path):
        for number in range(1000):
            page(number)
            if kind == "sftp":
                yield Entry
            else:  # the library asks on by itself if a list has no other names than that of the folder
                sftp.stat("/")

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.handle_error = lambda *_args: None  # the client has gone
        threading.Thread(target=server.serve_forever, daemon=True).start()
        port = server.server_address[1]
        if kind == "s3":
            place = s3_at(f"s3://AKIA:secret@b?endpoint_url=http://127.0.0.1:{port}")
        elif kind == "webdav":
            place = s3_at(f"webdav://family:secret@127.0.0.1:{port}/nas")
        else:
            monkeypatch.setattr("paramiko.SFTPClient.listdir_iter", entries)
            place = remote("sftp").place
        for answer in (0.5, 2, 8, 32):  # a busy machine takes long to ask for the first names
            monkeypatch.setattr(asking, "ANSWER", answer)
            trouble(place.names, Slow)
            if sent:
                break
        before = 0
        while before < len(sent):
            before = len(sent)
            time.sleep(0.5)
        server.shutdown()
    assert 0 < before < 1000


def test_a_connection_that_is_made_when_nobody_waits_for_it_any_more(remote, trouble, monkeypatch):
    import paramiko

    place, connect, made = remote("sftp").place, paramiko.SSHClient.connect, []

    def late(self, *args, **options):
        connect(self, *args, **options)
        made.append(self.get_transport())
        place._client.break_off()

    monkeypatch.setattr(paramiko.SSHClient, "connect", late)
    trouble(place.names, Slow)
    made[0].join(10)
    assert not made[0].is_alive()


@over_http
def test_a_file_that_nobody_waits_for_any_more(s3_at, trouble, monkeypatch, address):
    """What is fetched takes no more room on the disk once it was given up."""
    monkeypatch.setattr(asking, "STALLED", 0.3)
    sent = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Length", str(2**40))
            self.end_headers()
            with suppress(OSError):
                while len(sent) < 20:
                    time.sleep(0.6)
                    self.wfile.write(bytes(MIB))
                    sent.append(MIB)

        def log_message(self, *args):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        trouble(acts(s3_at(address.format(port=server.server_address[1])))["fetch"], Slow)
        time.sleep(3)
        server.shutdown()
    assert len(sent) < 4


@over_http
def test_what_is_packed_is_not_unpacked(s3_at, address):
    """Nobody asked for it, and a few bytes that were packed three times would fill the memory."""
    packed = bytes(256 * MIB)
    for _ in range(2):
        packed = gzip.compress(packed)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Encoding", "gzip, gzip")
            self.send_header("Content-Length", str(len(packed)))
            self.end_headers()
            self.wfile.write(packed)

        def log_message(self, *args):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        place = s3_at(address.format(port=server.server_address[1]))
        place.read_part("kept/a.zip", 0, 1)  # its library is loaded now
        tracemalloc.start()
        try:
            assert place.read_part("kept/a.zip", 0, 10) == packed[:10]
            with place.fetch("kept/a.zip") as file:
                assert file.read() == packed
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
            server.shutdown()
    assert peak < 8 * MIB


def test_a_place_with_too_many_files(there, trouble, monkeypatch):
    for number in range(4):
        there.place.send(f"kept/{number}.zip", io.BytesIO(b"a"))
    monkeypatch.setattr("backup.storage.locations.client.MOST_LISTED", 4)
    assert len(there.place.names()) == 4
    there.place.send("kept/5.zip", io.BytesIO(b"a"))
    trouble(there.place.names, LocationFailed, "lists more than 4 files")


def test_a_folder_with_too_many_files(settings, host_db, trouble, monkeypatch, tmp_path):
    settings.BACKUP_LOCATIONS = {"there": str(tmp_path / "nas")}
    place = location("there")
    for number in range(5):
        place.send(f"kept/{number}.zip", io.BytesIO(b"a"))
    monkeypatch.setattr("backup.storage.locations.client.MOST_LISTED", 4)
    trouble(place.names, LocationFailed, "lists more than 4 files")


def test_no_such_host(settings, host_db, trouble):
    for address in (
        f"sftp://u:{quote(PASSWORD, safe='')}@no-such-host.invalid/x?host_key=SHA256:x",
        f"webdavs://u:{quote(PASSWORD, safe='')}@no-such-host.invalid/x",
        f"s3://AKIA:{quote(PASSWORD, safe='')}@bucket?endpoint_url=https://no-such-host.invalid",
    ):
        settings.BACKUP_LOCATIONS = {"there": address}
        trouble(location("there").names, Unreachable, secrets=["no-such-host"])


# -- S3 ---


@pytest.fixture
def s3_at(settings, host_db):
    def make(address):
        settings.BACKUP_LOCATIONS = {"there": address}
        return location("there")

    return make


def test_s3_credentials(s3, s3_at, trouble):
    with s3.user_who_may("*") as (key, secret):
        s3_at(s3.address(key=key, secret=secret)).test()
        for wrong in ({"key": key, "secret": "no-secret-of-hers"}, {"key": "AKIAOTHER", "secret": secret}):
            for act in acts(s3_at(s3.address(**wrong))).values():
                trouble(act, Denied)


def test_s3_no_such_bucket(s3, s3_at, trouble):
    place = s3_at(s3.address(bucket="nobodys"))
    for act in acts(place).values():
        trouble(act, WrongAddress, "no bucket")


def test_s3_append_only(s3, s3_at, trouble):
    with s3.user_who_may("PutObject") as (key, secret):
        append_only(s3_at(s3.address(key=key, secret=secret)), trouble)
    with s3.user_who_may("PutObject", "GetObject", "ListBucket") as (key, secret):
        place = s3_at(s3.address(key=key, secret=secret))
        assert [type(limit) for limit in place.test()] == [CannotDelete]
        assert "a.zip" in place.names()
        trouble(lambda: place.delete("kept/a.zip"), CannotDelete, "old copies stay")
    with s3.user_who_may("ListBucket") as (key, secret):
        trouble(acts(s3_at(s3.address(key=key, secret=secret)))["send"], Denied, "write")


def append_only(place, trouble):
    """A place where nothing can be done but to write: what cannot be done is no error of the probe."""
    place.send("kept/a.zip", io.BytesIO(b"a"))
    trouble(place.names, CannotList)
    trouble(place.other_sites, CannotList)
    trouble(lambda: place.fetch("kept/a.zip"), CannotRead)
    trouble(lambda: place.read_part("kept/a.zip", 0, 1), CannotRead)
    trouble(lambda: place.delete("kept/a.zip"), CannotDelete)
    assert [type(limit) for limit in place.test()] == [CannotRead, CannotList, CannotDelete]


class NoWays(InMemoryStorage):
    """A storage as Django allows it: without what it need not have."""

    listdir, delete = Storage.listdir, Storage.delete


def test_a_storage_that_cannot_list_or_delete(db, settings, trouble):
    settings.STORAGES = {**settings.STORAGES, "poor": {"BACKEND": f"{__name__}.NoWays"}}
    settings.BACKUP_LOCATIONS = {"poor": "storage:poor"}
    place = location("poor")
    assert [type(limit) for limit in place.test()] == [CannotList, CannotDelete]
    place.send("kept/a.zip", io.BytesIO(b"a"))
    with place.fetch("kept/a.zip") as file:
        assert file.read() == b"a"
    trouble(place.names, CannotList)
    trouble(lambda: place.delete("kept/a.zip"), CannotDelete)


@contextmanager
def canned(status, code):
    """A server that always says the same, in S3's words."""
    body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>of {PASSWORD}</Message></Error>".encode()
    with says(status, body) as port:
        yield port


@contextmanager
def says(status, body):
    """A server that always says the same."""

    class Handler(BaseHTTPRequestHandler):
        def answer(self):
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        do_GET = do_PUT = do_HEAD = do_DELETE = do_POST = answer

        def log_message(self, *args):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


@pytest.mark.parametrize(
    ("status", "code", "kind", "text"),
    [
        (507, "XMinioStorageFull", Full, "full"),
        (403, "QuotaExceeded", Full, "full"),
        (403, "InvalidAccessKeyId", Denied, "key and secret"),
        (403, "SignatureDoesNotMatch", Denied, "key and secret"),
        (403, "RequestTimeTooSkewed", Denied, "clock"),
        (403, "AccessDenied", Denied, "write"),
        (503, "SlowDown", Unreachable, "SlowDown"),
        (500, "InternalError", Unreachable, "InternalError"),
        (404, "NoSuchBucket", WrongAddress, "no bucket"),
        (400, "AuthorizationHeaderMalformed", WrongAddress, "region"),
        (400, "EntityTooLarge", LocationFailed, "EntityTooLarge"),
        (400, "KMS.DisabledException", LocationFailed, "(KMS.DisabledException)"),
        (400, "AKIAFAMILY", LocationFailed, "(400)"),
        (503, "AKIAFAMILY", Unreachable, "(503)"),
        (400, "AWS4-HMAC-SHA256 Credential=AKIAFAMILY/2026", LocationFailed, "(400)"),
        (400, "x" * 41, LocationFailed, "(400)"),
    ],
)
def test_s3_says_no(s3_at, trouble, status, code, kind, text):
    """What moto's server cannot be brought to say."""
    pytest.importorskip("boto3")
    with canned(status, code) as port:
        place = s3_at(
            f"s3://AKIAFAMILY:{quote(PASSWORD, safe='')}@backups?endpoint_url=http://127.0.0.1:{port}"
        )
        trouble(acts(place)["send"], kind, text)


def test_s3_lists_what_was_not_asked_for(s3_at):
    """A server that knows no prefixes. What another site has there must not be taken for a copy of this one."""
    pytest.importorskip("boto3")
    own, other = f"of/babybuddy/site_{site_id()}/kept/a.zip", "b.zip"
    keys = "".join(f"<Contents><Key>{key}</Key><Size>1</Size></Contents>" for key in (own, other))
    prefixes = "".join(
        f"<CommonPrefixes><Prefix>{key}</Prefix></CommonPrefixes>"
        for key in ("of/babybuddy/site_0123456789ab/", "site_ba9876543210/")
    )
    body = f"<ListBucketResult><KeyCount>4</KeyCount>{keys}{prefixes}</ListBucketResult>".encode()
    with says(200, body) as port:
        place = s3_at(f"s3://AKIA:secret@b/of/babybuddy?endpoint_url=http://127.0.0.1:{port}")
        assert place.names() == ["a.zip"]
        assert place.other_sites() == ["0123456789ab"]


@pytest.mark.parametrize("act", ["names", "sites"])
@pytest.mark.parametrize("body", [b"<html><body>Sign in</body></html>", b"<!DOCTYPE html><html/>", b""])
def test_s3_a_page_is_no_empty_list(s3_at, trouble, act, body):
    """Of a portal or a proxy in between, which answers in its place."""
    pytest.importorskip("boto3")
    with says(200, body) as port:
        place = s3_at(f"s3://AKIAFAMILY:secret-one@b?endpoint_url=http://127.0.0.1:{port}")
        trouble(acts(place)[act], WrongAddress, "does not speak S3")


@pytest.mark.parametrize(
    "said", ["<IsTruncated>false</IsTruncated>", "<KeyCount>0</KeyCount>", "<Name>b</Name>"]
)
def test_s3_an_empty_list(s3_at, said):
    """Servers leave out one or the other, and some only know the first version of lists."""
    pytest.importorskip("boto3")
    body = f'<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">{said}</ListBucketResult>'
    with says(200, body.encode()) as port:
        place = s3_at(f"s3://AKIAFAMILY:secret-one@b?endpoint_url=http://127.0.0.1:{port}")
        assert (place.names(), place.other_sites()) == ([], [])


@pytest.mark.parametrize("status", [301, 302, 307, 308])
@pytest.mark.parametrize("act", ["send", "fetch", "names", "delete"])
def test_s3_sends_elsewhere(s3_at, trouble, status, act):
    """A web server in its place, say, which sends everybody to its sign-in page."""
    pytest.importorskip("boto3")
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def answer(self):
            asked.append(self.path)
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            self.send_response(status)
            self.send_header("Location", "http://127.0.0.1:9/sign-in")
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_GET = do_PUT = do_HEAD = do_DELETE = do_POST = answer

        def log_message(self, *args):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        place = s3_at(f"s3://AKIA:secret@backups?endpoint_url=http://127.0.0.1:{server.server_address[1]}")
        trouble(acts(place)[act], LocationFailed, f"({status})")
        server.shutdown()
    assert len(asked) < 10


@pytest.mark.parametrize(
    ("act", "status"), [("names", 200), ("names", 403), ("fetch", 403), ("send", 200), ("delete", 403)]
)
def test_s3_an_answer_without_end(s3_at, trouble, act, status):
    """It does not come into memory. Only a file may be long, and that is written to the disk."""
    pytest.importorskip("boto3")
    sent = []

    class Handler(BaseHTTPRequestHandler):
        def answer(self):
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            self.send_response(status)
            self.end_headers()
            with suppress(OSError):
                while len(sent) < 100:
                    self.wfile.write(b"<a/>" * (MIB // 4))
                    sent.append(MIB)

        do_GET = do_PUT = do_DELETE = answer

        def log_message(self, *args):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        place = s3_at(
            f"s3://AKIAFAMILY:secret-one@b?endpoint_url=http://127.0.0.1:{server.server_address[1]}"
        )
        with suppress(LocationFailed):
            acts(place)[act]()  # its library is loaded now
        sent.clear()
        tracemalloc.start()
        try:
            trouble(acts(place)[act], WrongAddress, "does not speak S3")
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
            server.shutdown()
    assert len(sent) < 40
    assert peak < 20 * MIB


def test_s3_certificate(s3_at, trouble, tmp_path, monkeypatch):
    own = servers.certificate(tmp_path / "authority.pem")
    with servers.s3_server(own) as server:
        address = server.address().replace("=http:", "=https:")
        trouble(s3_at(address).names, NotVerified, "certificate")
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "authority.pem"))
        trouble(s3_at(address).names, WrongAddress, "no bucket")


# -- WebDAV ---


@pytest.mark.parametrize("kind", ["S3", "WebDAV"])
@pytest.mark.parametrize("status", [200, 403])
@pytest.mark.parametrize(
    "answer",
    [
        b'<!DOCTYPE a [<!ENTITY b "%s"><!ENTITY c "%s">]><a xmlns="DAV:"><response><href>%s</href></response></a>'
        % (b"x" * 1000, b"&b;" * 1000, b"&c;" * 50),
        b'<a xmlns="DAV:">%s</a>' % (b"<b/>" * 900_000),
        b'<a xmlns="DAV:">%s</a>' % (b"<response><href>/nas/site_1/kept</href></response>" * 80_000),
    ],
    ids=["entities", "elements", "entries"],
)
def test_an_answer_that_swells(s3_at, kind, status, answer):
    """A few MB that would take hundreds of them in memory, if all that a parser makes of them were kept."""
    pytest.importorskip({"S3": "boto3", "WebDAV": "httpx"}[kind])

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            self.send_response(207 if kind == "WebDAV" and status == 200 else status)
            self.end_headers()
            with suppress(OSError):
                self.wfile.write(answer)

        do_PROPFIND = do_GET

        def log_message(self, *args):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        at = f"127.0.0.1:{server.server_address[1]}"
        place = s3_at(
            f"s3://AKIAFAMILY:secret-one@b?endpoint_url=http://{at}"
            if kind == "S3"
            else f"webdav://family:secret@{at}/nas"
        )
        with suppress(LocationFailed):
            place.names()  # its library is loaded now
        tracemalloc.start()
        try:
            with suppress(LocationFailed):
                place.names()
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
            server.shutdown()
    assert peak < 25 * MIB


@pytest.mark.parametrize(
    ("refused", "act", "kind", "text"),
    [
        ({"PUT": 507}, "send", Full, "full"),
        ({"PUT": 413}, "send", LocationFailed, "size"),
        ({"PUT": 403}, "send", Denied, "write"),
        ({"PUT": 503}, "send", Unreachable, "503"),
        ({"MKCOL": 301}, "send", WrongAddress, "elsewhere"),
        ({"PUT": 201}, "send", LocationFailed, "not there afterwards"),
        ({"MOVE": 404}, "send", LocationFailed, "not there afterwards"),
        ({"PROPFIND": 400}, "names", WrongAddress, "WebDAV"),
        ({"PROPFIND": 200}, "names", WrongAddress, "WebDAV"),
        ({"PROPFIND": 403}, "names", CannotList, "list"),
        ({"DELETE": 403}, "delete", CannotDelete, "delete"),
        ({"DELETE": 423}, "delete", Unreachable, "423"),
        ({"GET": 403}, "fetch", CannotRead, "read"),
    ],
)
def test_webdav_says_no(remote, trouble, refused, act, kind, text):
    there = remote("webdav")
    there.server.refuse(refused)
    trouble(acts(there.place)[act], kind, text)


@pytest.mark.parametrize(
    "piece",
    [b"x", b"<a>", b"<d:response><d:href>/nas/site_1/kept/x</d:href></d:response>"],
    ids=["text", "nested", "entries"],
)
def test_webdav_a_list_without_end(settings, host_db, trouble, monkeypatch, piece):
    sent = []

    class Handler(BaseHTTPRequestHandler):
        def do_PROPFIND(self):
            self.send_response(207)
            self.end_headers()
            try:
                self.wfile.write(b'<d:multistatus xmlns:d="DAV:">')
                while len(sent) < 300:
                    self.wfile.write(piece * (MIB // len(piece)))
                    sent.append(MIB)
            except OSError:
                pass

        def log_message(self, *args):
            pass

    monkeypatch.setattr("backup.storage.locations.webdav._LONGEST_LIST", 2 * MIB)
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        settings.BACKUP_LOCATIONS = {
            "there": f"webdav://family:secret@127.0.0.1:{server.server_address[1]}/nas"
        }
        trouble(location("there").names, WrongAddress, "WebDAV")
        server.shutdown()
    assert len(sent) < 50


def test_webdav_credentials(remote, settings, trouble):
    there = remote("webdav")
    settings.BACKUP_LOCATIONS = {"there": there.server.address("/nas", password="an-other")}
    for act in acts(location("there")).values():
        trouble(act, Denied, "user and password", secrets=["an-other"])


def test_webdav_append_only(remote, trouble):
    """A share where files can only be dropped, as Nextcloud has them: names cannot be changed there either."""
    there = remote("webdav")
    there.server.refuse(dict.fromkeys(("PROPFIND", "GET", "HEAD", "MOVE", "DELETE"), 403))
    append_only(there.place, trouble)
    there.server.refuse({})
    assert there.place.names() == ["a.zip"]


def test_webdav_no_such_folder(remote, settings, trouble):
    there = remote("webdav")
    settings.BACKUP_LOCATIONS = {"there": there.server.address("/no/such/folder")}
    trouble(acts(location("there"))["send"], WrongAddress, "folder")


def test_webdav_in_clear(settings, host_db, trouble):
    address = "webdav://family:hunter2hunter@192.0.2.1/nas"
    settings.BACKUP_LOCATIONS = {"there": address}
    trouble(location("there").names, WrongAddress, "insecure=yes")
    settings.BACKUP_LOCATIONS = {"there": f"{address}?insecure=yes"}
    assert location("there").is_open
    assert location("there").is_remote


def test_no_tls_there(dav, s3, settings, host_db, trouble):
    """A port that is right for http:// only."""
    for address in (
        dav.address("/nas").replace("webdav:", "webdavs:"),
        s3.address().replace("=http:", "=https:"),
    ):
        settings.BACKUP_LOCATIONS = {"there": address}
        trouble(location("there").names, NotVerified, "does not speak TLS")


def test_webdav_certificate(tls_dav_server, settings, host_db, trouble, monkeypatch):
    settings.BACKUP_LOCATIONS = {"there": tls_dav_server.address("/nas/a")}
    trouble(location("there").names, NotVerified, "certificate")
    monkeypatch.setenv("SSL_CERT_FILE", str(tls_dav_server.authority))
    assert location("there").test() == []
    settings.BACKUP_LOCATIONS = {"there": tls_dav_server.address("/nas/a", host="localhost")}
    trouble(location("there").names, NotVerified, "certificate")


# -- SFTP ---


@pytest.fixture
def sftp_at(ssh_server, settings, host_db, tmp_path):
    def make(**parameters):
        settings.BACKUP_LOCATIONS = {"there": ssh_server.address(tmp_path, **parameters)}
        return location("there")

    return make


def test_sftp_host_keys(ssh_server, sftp_at, trouble, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert sftp_at().test() == []
    told = trouble(sftp_at(known_hosts=None).names, NotVerified, "not known").message
    fingerprint = subprocess.run(
        ["ssh-keygen", "-lf", ssh_server.folder / "host.pub"], capture_output=True, text=True, check=True
    ).stdout.split()[1]
    assert fingerprint in told
    assert sftp_at(known_hosts=None, host_key=fingerprint).test() == []
    trouble(sftp_at(known_hosts=None, host_key="SHA256:" + "A" * 43).names, NotVerified, "not the one")
    kind, key, *_ = (ssh_server.folder / "unknown.pub").read_text().split()
    (tmp_path / "wrong").write_text(f"[127.0.0.1]:{ssh_server.port} {kind} {key}\n")
    trouble(sftp_at(known_hosts=tmp_path / "wrong").names, NotVerified, "another one")
    (tmp_path / ".ssh").mkdir()
    (tmp_path / ".ssh" / "known_hosts").write_text(ssh_server.known_hosts.read_text())
    assert sftp_at(known_hosts=None).test() == []


def test_sftp_credentials(ssh_server, sftp_at, settings, trouble, tmp_path):
    trouble(sftp_at(key_file=ssh_server.folder / "unknown").names, Denied, "user and password")
    for kind in ("rsa", "ecdsa"):
        servers.make_key(tmp_path / kind, kind)
        trouble(sftp_at(key_file=tmp_path / kind).names, Denied, "user and password")
    (tmp_path / "none").write_text("no key at all")
    trouble(sftp_at(key_file=tmp_path / "none").names, Denied, "private key")
    address = ssh_server.address(key_file=None).replace(
        f"{ssh_server.user}@", f"{ssh_server.user}:wrong-one@"
    )
    settings.BACKUP_LOCATIONS = {"there": address}
    trouble(location("there").names, Denied, "user and password", secrets=["wrong-one"])


def test_sftp_passphrase(ssh_server, sftp_at, settings, trouble, tmp_path):
    key = tmp_path / "key"
    key.write_bytes((ssh_server.folder / "user").read_bytes())
    key.chmod(0o600)
    subprocess.run(["ssh-keygen", "-q", "-p", "-N", "two words", "-f", key], check=True)
    trouble(sftp_at(key_file=key).names, Denied, "passphrase")
    address = ssh_server.address(tmp_path, key_file=key)
    settings.BACKUP_LOCATIONS = {
        "there": address.replace(f"{ssh_server.user}@", f"{ssh_server.user}:two%20words@")
    }
    assert location("there").test() == []


@pytest.mark.parametrize("kind", ["rsa", "ecdsa", "ed25519"])
def test_sftp_a_passphrase_is_no_password(settings, host_db, tmp_path, trouble, kind):
    """It opens the key, and is not for the server to know."""
    servers.make_key(tmp_path / "key", kind, "two words")
    with servers.password_ssh_server(tmp_path) as (port, host_key, sent):
        query = f"host_key={quote(host_key.fingerprint)}&key_file={tmp_path}/key"
        for user, text in ((f"{USER}:two%20words", "user and password"), (f"{USER}:other", "private key")):
            settings.BACKUP_LOCATIONS = {"there": f"sftp://{user}@127.0.0.1:{port}/x?{query}"}
            trouble(location("there").names, Denied, text, secrets=["two words"])
        settings.BACKUP_LOCATIONS = {"there": f"sftp://{USER}@127.0.0.1:{port}/x?{query}"}
        trouble(location("there").names, Denied, "passphrase")
    assert sent == []


def test_sftp_password(settings, host_db, tmp_path, trouble):
    with servers.password_ssh_server(tmp_path) as (port, host_key, sent):
        query = f"host_key={quote(host_key.fingerprint)}"
        for path, folder in (
            ("/~/own/folder", tmp_path / "own" / "folder"),
            (f"{tmp_path}/whole", tmp_path / "whole"),
        ):
            address = f"sftp://{USER}:{quote(PASSWORD, safe='')}@127.0.0.1:{port}{path}?{query}"
            settings.BACKUP_LOCATIONS = {"there": address}
            assert location("there").test() == []
            assert folder.is_dir()
        settings.BACKUP_LOCATIONS = {"there": f"sftp://{USER}:wrong-one@127.0.0.1:{port}/x?{query}"}
        trouble(location("there").names, Denied, "user and password", secrets=["wrong-one"])
    assert {*sent} == {PASSWORD, "wrong-one"}


@pytest.mark.parametrize(
    "greeting", [b"\xff\xfe garbage-of-hers\r\n" * 100, b"SSH-2.0-garbage-of-hers\r\n" + bytes(100), b""]
)
def test_sftp_a_server_that_does_not_speak_it(settings, host_db, trouble, caplog, greeting):
    """Nothing of what it sends, and no trace of paramiko's thread, is in our log."""
    pytest.importorskip("paramiko")
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer():
            with suppress(OSError):
                while True:
                    client, _ = listener.accept()
                    with client:
                        client.sendall(greeting)
                        client.recv(1000)

        threading.Thread(target=answer, daemon=True).start()
        port = listener.getsockname()[1]
        settings.BACKUP_LOCATIONS = {"there": f"sftp://u:secret-one@127.0.0.1:{port}/x?host_key=SHA256:x"}
        trouble(location("there").names, Unreachable, secrets=["garbage-of-hers"])
        with suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
    assert [record for record in caplog.records if record.name.startswith(("backup", "paramiko"))] == []


@pytest.mark.parametrize("is_known", [True, False], ids=["posix-rename", "rename"])
def test_sftp_cut_after_a_rename(remote, monkeypatch, is_known):
    """It was done, and is asked for again: then all is well, and what was sent is there."""
    import paramiko

    there = remote("sftp")
    there.place.send("kept/a.zip", io.BytesIO(b"before"))
    act = "posix_rename" if is_known else "rename"
    if not is_known:

        def unsupported(*_args):
            raise OSError("Operation unsupported")

        monkeypatch.setattr(paramiko.SFTPClient, "posix_rename", unsupported)
    rename, cuts = getattr(paramiko.SFTPClient, act), []

    def cut(sftp, old, new):
        rename(sftp, old, new)
        if not cuts:
            cuts.append(old)
            there.proxy.cut()
            sftp.stat(new)  # whose answer does not come

    monkeypatch.setattr(paramiko.SFTPClient, act, cut)
    there.place.send("kept/a.zip", io.BytesIO(b"after"))
    assert len(cuts) == 1
    assert there.place.names() == ["a.zip"]
    with there.place.fetch("kept/a.zip") as file:
        assert file.read() == b"after"


def test_sftp_not_all_of_it_arrives(remote, trouble):
    class Longer(io.BytesIO):
        def tell(self):
            return super().tell() + 1

    there = remote("sftp")
    trouble(lambda: there.place.send("kept/a.zip", Longer(b"a")), LocationFailed, "something else")
    assert there.place.names() == []


def test_sftp_append_only(ssh_server, sftp_at, trouble, tmp_path):
    for _ in range(2):  # as by two processes
        append_only(sftp_at(key_file=ssh_server.folder / "limited"), trouble)
    assert sftp_at().names() == ["a.zip"]
    (hidden,) = tmp_path.glob("site_*/kept/.*")
    assert hidden.stat().st_size == 0


def test_processes_that_begin_to_send_at_once(remote):
    """Each tests with a file of the same name whether files can be renamed there. (The WebDAV server of the tests fails
    if a folder is listed while one of its files is renamed.)"""
    there = remote("sftp")
    places = [location(there.place.name) for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        sent = [
            pool.submit(place.send, f"kept/{number}.zip", io.BytesIO(b"a"))
            for number, place in enumerate(places)
        ]
    assert [future.result() for future in sent] == [None] * 4
    assert len(there.place.names()) == 4


def test_sftp_no_such_folder(ssh_server, settings, host_db, trouble):
    settings.BACKUP_LOCATIONS = {"there": ssh_server.address("/proc/nowhere")}
    trouble(acts(location("there"))["send"], WrongAddress, "cannot be made")


def test_sftp_full(ssh_server, settings, host_db, trouble, tmp_path):
    with small_disk(tmp_path) as folder:
        settings.BACKUP_LOCATIONS = {"there": ssh_server.address(folder / "nas")}
        place = location("there")
        place.send("kept/b.zip", io.BytesIO(b"b"))
        for size in (4 * MIB, 2 * MIB, MIB):  # of fewer than a hundred pieces, paramiko hears no error
            trouble(lambda size=size: place.send("kept/a.zip", io.BytesIO(bytes(size))), Full, "full")
        assert place.names() == ["b.zip"]
        with suppress(OSError):
            (folder / "full").write_bytes(bytes(MIB))
        trouble(lambda: place.send("kept/a.zip", io.BytesIO(b"a")), Full, "full")
        settings.BACKUP_LOCATIONS = {"there": ssh_server.address(folder / "other" / "nas")}
        trouble(lambda: location("there").send("kept/a.zip", io.BytesIO(b"a")), Full, "full")


def test_sftp_takes_no_more_than_a_quota(ssh_server, sftp_at, trouble):
    """Of which the server says nothing. That is no damage."""
    place = sftp_at(key_file=ssh_server.folder / "small")
    place.send("kept/b.zip", io.BytesIO(b"b"))
    trouble(lambda: place.send("kept/a.zip", io.BytesIO(bytes(300_000))), LocationFailed, "does not work")
    assert place.names() == ["b.zip"]


def test_sftp_read_only(ssh_server, settings, host_db, trouble, tmp_path):
    with small_disk(tmp_path) as folder:
        settings.BACKUP_LOCATIONS = {"there": ssh_server.address(folder / "nas")}
        location("there").send("kept/b.zip", io.BytesIO(b"b"))
        remounted = subprocess.run(["mount", "-o", "remount,ro", folder], capture_output=True, check=False)
        if remounted.returncode:
            pytest.skip("only who may mount has a disk that cannot be written to")
        for place in (location("there"), location("there")):
            trouble(
                lambda place=place: place.send("kept/a.zip", io.BytesIO(b"a")), Denied, "let this user write"
            )
            trouble(lambda place=place: place.delete("kept/b.zip"), CannotDelete, "lets nobody delete")
            assert place.names() == ["b.zip"]
        settings.BACKUP_LOCATIONS = {"there": ssh_server.address(folder / "other" / "nas")}
        trouble(lambda: location("there").send("kept/a.zip", io.BytesIO(b"a")), Denied, "let this user write")


def test_folder_full(settings, host_db, trouble, tmp_path):
    with small_disk(tmp_path) as folder:
        settings.BACKUP_LOCATIONS = {"there": str(folder)}
        place = location("there")
        place.send("kept/b.zip", io.BytesIO(b"b"))
        trouble(lambda: place.send("kept/a.zip", io.BytesIO(bytes(4 * MIB))), Full, "full")
        assert place.names() == ["b.zip"]


@contextmanager
def small_disk(tmp_path):
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("only who may mount has a disk to fill")
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


# -- addresses and libraries ---


@pytest.mark.parametrize(
    ("address", "text"),
    [
        ("s3://AKIA:sec/ret@bucket/x", "percent-encoded"),
        ("s3://AKIA:sec?ret@bucket/x", "percent-encoded"),
        ("sftp://u:sec/#ret@host/x", "# → %23"),
        ("s3://AKIA:sec%ret@bucket/x", "percent-encoded"),
        ("s3://AKIA:secret@", "host"),
        ("s3://AKIA@bucket", "without a secret"),
        ("s3://AKIA:secret@bucket:99", "endpoint_url"),
        ("s3://AKIA:secret@bucket?endpoint_url=minio:9000", "https://"),
        ("s3://AKIA:secret@bucket?endpoint_url=https://:9000", "host"),
        ("s3://AKIA:secret@bucket?endpoint_url=https://minio:99999", "between 1 and 65535"),
        ("s3://AKIA:secret@bucket?endpoint_url=https://AKIA:secret@minio", "endpoint_url"),
        ("sftp://u:secret@host:65536/x", "between 1 and 65535"),
        ("webdavs://u:secret@host:0/x", "between 1 and 65535"),
        ("webdavs://u:secret@host:123456789/x", "between 1 and 65535"),
        ("s3://AKIA:secret@bucket?endpoint=https://x", "region_name"),
        ("sftp://host/x", "no user"),
        ("sftp://u:secret@/x", "host"),
        ("sftp://u:secret@host:port/x", "port"),
        ("sftp://u:secret@host/x?key_file=/no/such/file", "key_file"),
        ("sftp://u:secret@host/x?known_hosts=/no/such/file", "known_hosts"),
        ("sftp://u:secret@host/x?host_key=abc", "SHA256:"),
        ("webdavs://u:secret@host/x?y=1", "insecure"),
        ("ftp://u:secret@host/x", "s3://"),
        ("u:secret@host/x", "whole path"),
        ("storage:nowhere", "no alias"),
        ("storage:backups", "backups"),
        ("storage:broken", "cannot be made"),
    ],
)
def test_wrong_addresses(settings, host_db, trouble, address, text):
    settings.STORAGES = {**settings.STORAGES, "broken": {"BACKEND": "no.such.Storage"}}
    settings.BACKUP_LOCATIONS = {"there": address}
    for act in acts(location("there")).values():
        trouble(act, WrongAddress, text, secrets=["AKIA"])


@pytest.mark.parametrize(
    ("address", "kind"),
    [
        ("s3://AKIA:sec/ret@bucket", "S3"),
        ("sftp://", "SFTP"),
        ("webdav://u:secret@host", "WebDAV"),
        ("webdavs://u:secret@host", "WebDAV"),
        ("storage:nowhere", "storage"),
        ("/mnt/nas", "folder"),
        ("sftp:/mnt/nas", "folder"),
    ],
)
def test_kinds(address, kind):
    """Told whatever else is wrong with the address."""
    assert Location("there", address).kind == kind


@pytest.mark.parametrize(
    ("host", "is_open"),
    [
        ("http://127.0.0.1:9000", False),
        ("http://localhost", False),
        ("http://[::1]", False),
        ("http://[::1]:9000/s3", False),
        ("http://minio:9000", True),
        ("http://[2001:db8::1]:9000", True),
        ("https://minio:9000", False),
    ],
)
def test_s3_in_clear(s3_at, host, is_open):
    pytest.importorskip("boto3")
    assert s3_at(f"s3://AKIA:secret@bucket?endpoint_url={host}").is_open == is_open


@pytest.mark.parametrize(
    ("address", "name", "extra"),
    [
        ("s3://AKIA:secret@bucket", "boto3", "[s3]"),
        ("sftp://u:secret@host/x", "paramiko", "[sftp]"),
        ("webdavs://u:secret@host/x", "httpx", "[webdav]"),
    ],
)
def test_a_library_that_is_missing(settings, host_db, trouble, monkeypatch, address, name, extra):
    monkeypatch.setitem(sys.modules, name, None)
    settings.BACKUP_LOCATIONS = {"there": address}
    error = trouble(location("there").names, LibraryMissing, extra)
    assert name in error.message


def test_no_such_location(settings):
    settings.BACKUP_LOCATIONS = {"there": "/mnt"}
    with pytest.raises(NoSuchLocation):
        location("elsewhere")


def test_every_kind_has_a_code_of_its_own():
    kinds = [
        kind
        for kind in vars(exceptions).values()
        if isinstance(kind, type) and issubclass(kind, LocationFailed)
    ]
    assert len({kind.code for kind in kinds}) == len(kinds) >= 12
