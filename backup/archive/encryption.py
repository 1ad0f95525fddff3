"""Encrypted entries of a ZIP: AES-256 as WinZip defines it (AE-2), which 7-Zip, Keka, bsdtar and others open.

An entry consists of a salt, two check bytes that reveal most wrong keys, the encrypted data (deflated or stored), and a
code that authenticates it. All is read and written as a stream. See https://www.winzip.com/en/support/aes-encryption/.
"""

from __future__ import annotations

import copy
import hashlib
import hmac
import os
import re
import struct
import zipfile
from collections.abc import Iterator
from typing import Any, Protocol

from django.utils.translation import gettext as _

from ..exceptions import EncryptionUnavailable
from . import deflate
from .key import Key

try:
    from Cryptodome.Cipher import AES
    from Cryptodome.Util import Counter
except ImportError:  # the extra "encryption" is not installed
    AES = None  # type: ignore[assignment]

#: The compression method of every encrypted entry. The real one is in the extra field.
METHOD = 99
#: The flag of an entry that says that it is encrypted.
FLAG = 0x1
_EXTRA_ID, _AE_1, _AE_2, _AES_256 = 0x9901, 1, 2, 3
_EXTRA = struct.Struct("<HHH2sBH")
_SALT, _CHECK, _CODE = 16, 2, 10
#: Bytes that encryption adds to an entry.
OVERHEAD = _SALT + _CHECK + _CODE
#: Bytes that are decrypted at a time.
_PIECE = 256 * 1024
_ROUNDS = 1000

_README = """\
This is a backup of Baby Buddy, made by babybuddy-backup, and encrypted.

Made: {timestamp}
Site: {instance}
Key id: {key_id}

To restore it, open "Backup & Restore" in Baby Buddy, choose this file, and type in the key when you are asked for it.

To read it without Baby Buddy, open it with 7-Zip (Windows), Keka (macOS), GNOME Files or bsdtar (Linux). The password
is the key with the id {key_id}, exactly as it is printed: in capital letters, with the hyphens. Windows Explorer and
macOS Archive Utility cannot open it. All other files in here are encrypted by AES-256 (WinZip AE-2): metadata.json
says what the backup holds. Files in the folder media, if there are any, are photos: metadata.json lists their names in
the same order. Each of the others is JSON.

Without the key nobody can read the backup.
"""


class Readable(Protocol):
    def read(self, size: int, /) -> bytes: ...


class NotAuthenticError(ValueError):
    """The decrypted data is not authentic: it was damaged or changed, or the key is wrong."""


def readme(timestamp: str, instance: str, key: Key) -> str:
    """Return the unencrypted text of an encrypted backup: for README.txt, and for the comment of the ZIP.

    It is always in English, since nobody knows who will find the file, and since `key_id_in` parses it.
    """
    return _README.format(timestamp=timestamp, instance=instance or "unknown", key_id=key.id)


def key_id_in(text: bytes) -> str:
    """Return the id of the key that a README or the comment of a ZIP names; "" if it names none."""
    match = re.search(rb"^Key id: ([A-Z]{4})\r?$", text, re.MULTILINE)
    return match[1].decode() if match else ""


def check_available() -> None:
    """Raise `EncryptionUnavailable` if the library is missing."""
    if AES is None:
        raise EncryptionUnavailable(
            _(
                "Encryption needs a library that is not installed on this server: install "
                "babybuddy-backup[encryption]."
            )
        )


def _keys_for(key: Key, salt: bytes) -> tuple[Any, Any, bytes]:
    """Return cipher, authenticator and check bytes for a key and a salt. Raises `EncryptionUnavailable`."""
    check_available()
    derived = hashlib.pbkdf2_hmac("sha1", key.text.encode(), salt, _ROUNDS, 32 + 32 + _CHECK)
    counter = Counter.new(128, little_endian=True, initial_value=1)
    cipher = AES.new(derived[:32], AES.MODE_CTR, counter=counter)
    return cipher, hmac.new(derived[32:64], digestmod="sha1"), derived[64:]


# -- writing ---


def entry(name: str, method: int = zipfile.ZIP_DEFLATED) -> zipfile.ZipInfo:
    """Return a new entry with room for the extra field of `encrypt`. `method`: how the data is compressed."""
    info = zipfile.ZipInfo(name)
    info.compress_type = zipfile.ZIP_DEFLATED  # so that `zipfile` calls the compressor that it is given
    info.extra = _EXTRA.pack(_EXTRA_ID, _EXTRA.size - 4, _AE_2, b"AE", _AES_256, method)
    return info


class Encryptor:
    """Compresses, then encrypts. It takes the place of the compressor in `zipfile`."""

    def __init__(self, key: Key, compressor: Any) -> None:
        salt = os.urandom(_SALT)
        self._cipher, self._code, check = _keys_for(key, salt)
        self._compressor = compressor
        self._head = salt + check

    def compress(self, data: bytes) -> bytes:
        return self._encrypted(self._compressor.compress(data))

    def flush(self) -> bytes:
        """Return the end of the data, and the code that authenticates all of it."""
        data = self._encrypted(self._compressor.flush())
        code: bytes = self._code.digest()
        return data + code[:_CODE]

    def _encrypted(self, packed: bytes) -> bytes:
        data: bytes = self._cipher.encrypt(packed)
        self._code.update(data)
        head, self._head = self._head, b""
        return head + data


def encrypt(member: Any, info: zipfile.ZipInfo, key: Key, compressor: Any) -> None:
    """Encrypt a member that `zipfile` has just begun to write. `info`: from `entry`.

    `zipfile` has no public way to do this. It writes both headers of the member when that is closed.
    """
    member._compressor = Encryptor(key, compressor)
    info.compress_type = METHOD
    info.flag_bits |= FLAG
    info.create_version = info.extract_version = 51


def end(member: Any) -> None:
    """Finish a member just before it is closed: AE-2 has no CRC, since it would reveal something of the content."""
    member._crc = 0


# -- reading ---


def compression(info: zipfile.ZipInfo) -> int | None:
    """Return the compression method of an encrypted entry; None if it is not encrypted with AES-256."""
    extra, method_inside = info.extra, None
    while len(extra) >= 4:
        kind, length = struct.unpack_from("<HH", extra)
        if kind == _EXTRA_ID and length == _EXTRA.size - 4 and len(extra) >= _EXTRA.size:
            _kind, _length, version, vendor, strength, method = _EXTRA.unpack_from(extra)
            if (
                method_inside is not None
                or version not in (_AE_1, _AE_2)
                or (vendor, strength) != (b"AE", _AES_256)
            ):
                return None
            method_inside = method
        extra = extra[4 + length :]
    return method_inside if info.compress_type == METHOD else None


def raw(info: zipfile.ZipInfo) -> zipfile.ZipInfo:
    """Return a copy of an entry that makes `zipfile` read the encrypted bytes as its content."""
    stored = copy.copy(info)
    del stored.CRC  # so that no CRC is checked
    stored.flag_bits &= ~FLAG
    stored.compress_type = zipfile.ZIP_STORED
    stored.file_size = info.compress_size
    return stored


class _Encrypted:
    """The encrypted bytes of an entry, decrypted as a stream. `left`: how many have not been read yet."""

    def __init__(self, source: Readable, size: int, key: Key) -> None:
        self._source = source
        self.left = max(size - OVERHEAD, 0)  # of one that was cut
        self._cipher, self._code, check = _keys_for(key, source.read(_SALT))
        self.fits = hmac.compare_digest(source.read(_CHECK), check)

    def skip(self) -> None:
        """Read to the end without decrypting."""
        while self.left:
            self._next()

    def decrypted(self) -> bytes:
        """Return the next piece; b"" at the end."""
        return self._cipher.decrypt(self._next()) if self.left else b""

    def _next(self) -> bytes:
        data = self._source.read(min(_PIECE, self.left))
        if not data:
            raise EOFError
        self.left -= len(data)
        self._code.update(data)
        return data

    def is_authentic(self) -> bool:
        """Tell whether the data is authentic and of this key. To be called when everything was read."""
        return hmac.compare_digest(self._source.read(_CODE), self._code.digest()[:_CODE])


def opens(source: Readable, info: zipfile.ZipInfo, key: Key) -> bool:
    """Tell whether a key opens an entry. Reads all of it, since the check bytes also fit one wrong key in 65,536."""
    encrypted = _Encrypted(source, info.compress_size, key)
    if not encrypted.fits:
        return False
    encrypted.skip()
    return encrypted.is_authentic()


class Decryptor:
    """The content of an encrypted entry, decrypted and decompressed as a stream.

    It never returns more bytes than the entry claims to have. The content is only known to be authentic once `read`
    returns b"". Every read may raise `NotAuthenticError`, other kinds of `ValueError`, `EOFError` or `deflate.ERRORS`.
    """

    def __init__(self, source: Readable, info: zipfile.ZipInfo, key: Key) -> None:
        self._encrypted = _Encrypted(source, info.compress_size, key)
        if not self._encrypted.fits:
            raise NotAuthenticError
        self._is_deflated = compression(info) == zipfile.ZIP_DEFLATED
        self._unpacker: Any = deflate.decompressor() if self._is_deflated else _Stored()
        self._left = info.file_size
        self._is_full = self._is_done = False

    def read(self, size: int) -> bytes:
        """Return at most `size` bytes; b"" at the end."""
        while not self._is_done:
            packed = self._unpacker.unconsumed_tail
            if not packed and not self._is_full and not self._unpacker.eof:
                packed = self._encrypted.decrypted()
            if not packed and not self._is_full:
                self._finish()
                break
            data: bytes = self._unpacker.decompress(packed, size)
            self._is_full = len(data) == size  # the decompressor may hold more
            self._left -= len(data)
            if self._left < 0:
                raise ValueError("more than the entry says")
            if data:
                return data
        return b""

    def _finish(self) -> None:
        self._is_done = True
        if self._left or self._encrypted.left or self._unpacker.unused_data:
            raise ValueError("less than the entry says, or something behind it")
        if self._is_deflated and not self._unpacker.eof:
            raise EOFError
        if not self._encrypted.is_authentic():
            raise NotAuthenticError


def decrypted(source: Readable, info: zipfile.ZipInfo, key: Key) -> Iterator[bytes]:
    """Yield the packed content of an entry, authentic or not, as far as it is there."""
    encrypted = _Encrypted(source, info.compress_size, key)
    while data := encrypted.decrypted() if encrypted.fits else b"":
        yield data


class _Stored:
    """A stand-in for a decompressor, for data that is not compressed."""

    unconsumed_tail = unused_data = b""
    eof = False

    def decompress(self, data: bytes, size: int) -> bytes:
        self.unconsumed_tail = data[size:]
        return data[:size]
