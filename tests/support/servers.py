"""Starts real servers for locations, each on a free port of this machine: S3, WebDAV, SFTP. `Proxy` is a proxy before
one of them that can cut connections, or hang."""

import contextlib
import getpass
import importlib.util
import io
import itertools
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path
from urllib.parse import quote

import pytest

STRICT = os.environ.get("BACKUP_TEST_STRICT") == "1"
#: The password has characters that must be percent-encoded in an address.
USER, PASSWORD = "family", "p/a?s#s@w:o%r d"


def missing(what):
    """Skip a test that needs something that is not installed; with BACKUP_TEST_STRICT=1, fail instead."""
    (pytest.fail if STRICT else pytest.skip)(f"{what} is not installed")


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def wait_for_port(port, process):
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and (process.poll() is None):
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.02)
    raise RuntimeError("the server did not start")


@contextlib.contextmanager
def running(command, port):
    """Run a server until the block ends."""
    quiet = subprocess.DEVNULL
    with subprocess.Popen(command, stdin=quiet, stdout=quiet, stderr=quiet) as process:
        try:
            wait_for_port(port, process)
            yield
        finally:
            process.terminate()


class Proxy:
    """A proxy before a server that can disturb connections. `limit`: after how many bytes from the client it does."""

    def __init__(self, port):
        self.target, self.limit, self.hangs, self.is_down = port, None, False, False
        self.towards_client = False
        self.moved = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._open = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            if self.is_down:
                client.close()
                continue
            server = socket.create_connection(("127.0.0.1", self.target))
            self._open += [client, server]
            for source, sink, from_client in ((client, server, True), (server, client, False)):
                threading.Thread(target=self._pump, args=(source, sink, from_client), daemon=True).start()

    def _pump(self, source, sink, from_client):
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if from_client != self.towards_client and self.limit is not None:
                    self.moved += len(data)
                    if self.moved > self.limit:
                        if self.hangs:
                            threading.Event().wait(60)
                        break
                sink.sendall(data)
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def bad(self, limit=0, *, hangs=False, towards_client=False):
        """From now on, cut each connection after `limit` bytes from the client, or towards it; or let it hang."""
        self.moved, self.limit, self.hangs, self.towards_client = 0, limit, hangs, towards_client

    def cut(self):
        """Cut the open connections."""
        for end in self._open:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        self._open.clear()

    def close(self):
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # or the thread would accept one more connection
        self._listener.close()
        for end in self._open:
            with contextlib.suppress(OSError):
                end.close()


# -- S3 ---


class S3Server:
    def __init__(self, port):
        self.port, self.endpoint = port, f"http://127.0.0.1:{port}"
        self.key, self.secret = "AKIAFAMILY", "se/cr+et"
        self._numbers = itertools.count()

    def address(self, bucket="backups", prefix="/of/babybuddy", port=None, key=None, secret=None):
        user = f"{quote(key or self.key, safe='')}:{quote(secret or self.secret, safe='')}"
        endpoint = f"http://127.0.0.1:{port or self.port}"
        return f"s3://{user}@{bucket}{prefix}?endpoint_url={endpoint}&region_name=us-east-1"

    def client(self, service="s3"):
        import boto3

        return boto3.client(
            service,
            endpoint_url=self.endpoint,
            region_name="us-east-1",
            aws_access_key_id=self.key,
            aws_secret_access_key=self.secret,
        )

    def post(self, path, content=b""):
        headers = {"Content-Type": "text/plain"}
        with urllib.request.urlopen(urllib.request.Request(f"{self.endpoint}{path}", content, headers)):
            pass

    def reset(self):
        self.post("/moto-api/reset-auth", b"inf")
        self.post("/moto-api/reset")
        self.client().create_bucket(Bucket="backups")

    @contextlib.contextmanager
    def user_who_may(self, *actions):
        """Make a user with only these permissions; yields key and secret. They are only checked within the block."""
        iam, name = self.client("iam"), f"user{next(self._numbers)}"
        iam.create_user(UserName=name)
        statement = {"Effect": "Allow", "Action": [f"s3:{name}" for name in actions], "Resource": "*"}
        policy = {"Version": "2012-10-17", "Statement": [statement]}
        iam.put_user_policy(UserName=name, PolicyName="p", PolicyDocument=json.dumps(policy))
        key = iam.create_access_key(UserName=name)["AccessKey"]
        self.post("/moto-api/reset-auth", b"0")
        try:
            yield key["AccessKeyId"], key["SecretAccessKey"]
        finally:
            self.post("/moto-api/reset-auth", b"inf")


@contextlib.contextmanager
def s3_server(tls=None):
    """Run moto's server, in its own process, so that its memory is not ours. `tls`: the file of its certificate."""
    if importlib.util.find_spec("moto") is None or importlib.util.find_spec("flask_cors") is None:
        missing("moto's server")
    port = free_port()
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    if tls:
        command += ["--ssl", "--ssl-cert", str(tls), "--ssl-key", str(tls)]
    with running(command, port):
        yield S3Server(port)


# -- WebDAV ---


class DavServer:
    """`authority`: the file with the certificate of its authority."""

    def __init__(self, folder, port, authority=None):
        self.folder, self.port, self.authority = folder, port, authority
        self.refuse({})

    def refuse(self, statuses):
        """From now on, answer requests with an error. `statuses`: method -> status."""
        self.folder.with_suffix(".json").write_text(json.dumps(statuses))

    def address(self, path="/nas/babybuddy", port=None, password=PASSWORD, host="127.0.0.1"):
        scheme = "webdavs" if self.authority else "webdav"
        return f"{scheme}://{USER}:{quote(password, safe='')}@{host}:{port or self.port}{path}"


@contextlib.contextmanager
def dav_server(folder, *, tls=False):
    for name in ("wsgidav", "cheroot"):
        if importlib.util.find_spec(name) is None:
            missing(name)
    (folder / "nas").mkdir(parents=True)
    dav = DavServer(folder, free_port(), folder.with_suffix(".pem") if tls else None)
    command = [sys.executable, "-m", "tests.support.dav_server", str(folder), str(dav.port)]
    if tls:
        command.append(str(certificate(dav.authority)))
    with running(command, dav.port):
        yield dav


def certificate(authority_file):
    """Make a certificate for 127.0.0.1, and write that of its authority into a file. Return the file of the former."""
    try:
        import trustme
    except ImportError:
        missing("trustme")
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(authority_file))
    own = authority_file.with_name("server.pem")
    authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(str(own))
    return own


# -- SFTP ---


SFTP_SERVER = next(filter(os.path.exists, ("/usr/lib/openssh/sftp-server", "/usr/libexec/sftp-server")), None)


#: What the key `limited` may not do: list, read, delete or rename.
LIMITED = "opendir,readdir,read,remove,rename,posix-rename"
#: What the key `small` gets: no file may be larger than 32 or 64 KB, whatever room there is, as with a quota.
SMALL = f"trap '' XFSZ; ulimit -f 64; exec {SFTP_SERVER}"


class SshServer:
    """OpenSSH's sshd with keys of its own. `folder`: where the files of the test are."""

    def __init__(self, folder, port):
        self.folder, self.port, self.user = folder, port, getpass.getuser()
        self.known_hosts, self.key = folder / "known_hosts", folder / "user"

    def address(self, path=None, port=None, **parameters):
        known = {"known_hosts": self.known_hosts, "key_file": self.key} | parameters
        query = "&".join(f"{name}={quote(str(value))}" for name, value in known.items() if value)
        path = path or self.folder / "nas" / "babybuddy"
        return f"sftp://{self.user}@127.0.0.1:{port or self.port}{path}?{query}"

    def knows(self, port, key="host"):
        """Add a host key to known_hosts, for a port."""
        kind, text, *_ = (self.folder / f"{key}.pub").read_text().split()
        with self.known_hosts.open("a") as file:
            file.write(f"[127.0.0.1]:{port} {kind} {text}\n")


def make_key(path, kind="ed25519", passphrase=""):
    subprocess.run(["ssh-keygen", "-q", "-t", kind, "-N", passphrase, "-f", path], check=True)


@contextlib.contextmanager
def ssh_server(folder):
    sshd = shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin")
    if not sshd or not SFTP_SERVER:
        missing("OpenSSH's server")
    (folder / "nas").mkdir(parents=True)
    for name in ("host", "user", "limited", "small", "unknown"):
        make_key(folder / name)
    limited = f'command="{SFTP_SERVER} -P {LIMITED}",restrict {(folder / "limited.pub").read_text()}'
    small = f'command="{SMALL}",restrict {(folder / "small.pub").read_text()}'
    (folder / "authorized_keys").write_text((folder / "user.pub").read_text() + limited + small)
    if os.geteuid() == 0:  # sshd wants it where it could change users
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    server = SshServer(folder, free_port())
    config = folder / "config"
    config.write_text(
        f"""ListenAddress 127.0.0.1:{server.port}
HostKey {folder}/host
AuthorizedKeysFile {folder}/authorized_keys
PidFile none
UsePAM no
StrictModes no
PasswordAuthentication yes
Subsystem sftp {SFTP_SERVER}
"""
    )
    server.knows(server.port)
    command = [sshd, "-f", str(config)]
    # Since OpenSSH 9.8, an address from which a sign-in failed is refused for a while.
    forgiving = [*command, "-o", "PerSourcePenalties=no"]
    if subprocess.run([*forgiving, "-t"], capture_output=True).returncode == 0:
        command = forgiving
    with running([*command, "-D", "-e"], server.port):
        yield server


@contextlib.contextmanager
def password_ssh_server(folder):
    """Run OpenSSH's sftp-server behind a server that accepts a password: sshd only accepts those of system users.

    Yields the port, its host key, and the list of the passwords that were sent to it.
    """
    sent = []
    try:
        import paramiko
    except ImportError:
        missing("paramiko")
    if not SFTP_SERVER:
        missing("OpenSSH's server")

    class Interface(paramiko.ServerInterface):
        def check_auth_password(self, username, password):
            sent.append(password)
            good = (username, password) == (USER, PASSWORD)
            return paramiko.AUTH_SUCCESSFUL if good else paramiko.AUTH_FAILED

        def get_allowed_auths(self, username):
            return "password"

        def check_channel_request(self, kind, channel_id):
            return paramiko.OPEN_SUCCEEDED

        def check_channel_subsystem_request(self, channel, name):
            threading.Thread(target=serve, args=(channel,), daemon=True).start()
            return True

    def serve(channel):
        process = subprocess.Popen([SFTP_SERVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=folder)

        def answer():
            while data := process.stdout.read1(65536):
                channel.sendall(data)
            channel.close()

        threading.Thread(target=answer, daemon=True).start()
        with contextlib.suppress(OSError):
            while data := channel.recv(65536):
                process.stdin.write(data)
                process.stdin.flush()
        with contextlib.suppress(OSError):
            process.stdin.close()
        process.wait()
        process.stdout.close()

    key = paramiko.RSAKey.from_private_key(io.StringIO(rsa_key()))
    listener = socket.create_server(("127.0.0.1", 0))

    def accept():
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            transport = paramiko.Transport(client)
            transport.set_log_channel("tests.sftp")
            transport.add_server_key(key)
            with contextlib.suppress(paramiko.SSHException, EOFError, OSError):  # the client has disconnected
                transport.start_server(server=Interface())

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield listener.getsockname()[1], key, sent
    finally:
        listener.close()


def rsa_key():
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import rsa

    return (
        rsa.generate_private_key(65537, 2048)
        .private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
        )
        .decode()
    )
