"""Reads a backup file, and trusts nothing in it: see `Archive`.

Longer than most modules, to keep the whole defence against hostile files in one place.
"""

from __future__ import annotations

import codecs
import datetime as dt
import hashlib
import json
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from typing import Any, BinaryIO

import orjson
from django.utils.translation import gettext as _

from ..exceptions import DamagedBackup, InvalidBackup, TooLarge, WrongKey
from ..options import Place, Places
from ..threads import worker
from . import deflate, encryption, foreign
from .key import Key, Keys, key_needed
from .limits import Limits, megabytes, metadata_too_long
from .lines import (
    LayoutError,
    Lines,
    RecordTooDeepError,
    RecordTooLongError,
    TooManyValuesError,
    has_more_values,
    read_elements,
    read_lines,
)
from .members import MEDIA, README_FILE, RECORDS, RECORDS_FILE, Member, Photo, Records, records_by_name
from .metadata import Metadata, lost_metadata, parse_metadata
from .names import METADATA, members_of, shown, slashed
from .photos import DAMAGE, IN_MEMORY, PhotoSource
from .remains import PIECE, CutOff, text_of, unpacked, whole_records

#: Bytes of a member that are read, checked and parsed at a time, so that memory does not grow with the file. With
#: smaller blocks, a preview would query the database server too often for too few rows.
BLOCK = 256 * 1024
#: Bytes that a thread unpacks ahead. With less, it would mostly wait for the interpreter lock.
AHEAD = 1024 * 1024
#: How many members an error names.
MOST_NAMED = 20
#: Tells whether the model of this label takes a record, in parsed JSON.
Fits = Callable[[str, Any], bool]


def _loads_exactly(data: bytes) -> Any:
    """Parse JSON with the standard library, which reads whole numbers of any size.

    orjson parses it first, since only that refuses NaN and halves of surrogate pairs.
    """
    orjson.loads(data)
    return json.loads(data)


def _is_ours(records: Any, text: bytes) -> bool:
    """Tell whether the text is exactly what we would write for these records, so that it cannot hide anything."""
    try:
        return orjson.dumps(records) == text
    except TypeError:  # a whole number beyond 64 bits
        return False


class _TwiceError(ValueError):
    """An object has a name twice. The text of the error is the name."""


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    entries: dict[str, Any] = {}
    for name, value in pairs:
        if name in entries:
            raise _TwiceError(name)
        entries[name] = value
    return entries


class _BoundedReads:
    """A file that refuses huge reads, which `zipfile` would make for a hostile table of contents, and a table with too
    many entries, since `zipfile` would make an object of each."""

    def __init__(self, file: BinaryIO, limits: Limits) -> None:
        self._file, self._limits = file, limits
        self._limit = max(limits.directory_with_photos, AHEAD)
        self.seek, self.tell = file.seek, file.tell
        self._size = file.seek(0, 2)
        #: Whether the table of contents is being read.
        self.is_directory = True

    def seekable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        left = max(self._size - self.tell(), 0)  # so that no memory is allocated for what is not there
        data = self._file.read(min(size if size >= 0 else left, left, self._limit + 1))
        if len(data) > self._limit:
            raise InvalidBackup(_("The file is damaged or not a backup: its table of contents is too long."))
        if self.is_directory:
            self._limits.check_members(data.count(zipfile.stringCentralDir))  # type: ignore[attr-defined]
        return data


@contextmanager
def _zip_errors(name: str) -> Iterator[None]:
    """Raise `DamagedBackup` for whatever `zipfile` and `zlib` raise. `name`: of the entry that is read."""
    try:
        yield
    except DAMAGE as error:
        raise damaged(name) from error


def damaged(name: str) -> DamagedBackup:
    """Return the error for damage to an entry of this name."""
    return DamagedBackup(
        _("“%(file)s” in the backup is damaged: part of it is missing or was changed.")
        % {"file": shown(name)}
    )


def _newest(members: list[tuple[str, zipfile.ZipInfo]]) -> dt.datetime:
    """Return when the backup was made, as far as the ZIP tells."""
    newest = max((info.date_time for _name, info in members), default=(1980, 1, 1, 0, 0, 0))
    try:
        return dt.datetime(*newest, tzinfo=dt.timezone.utc)
    except ValueError:
        return dt.datetime(1980, 1, 1, tzinfo=dt.timezone.utc)


def _damaged_photo(photo: Photo) -> InvalidBackup:
    return InvalidBackup(
        _("The photo “%(name)s” is damaged: it is not what it was when it was backed up.")
        % {"name": shown(photo.name)}
    )


class Archive:
    """A backup file open for reading.

    `source`: a seekable binary file; it stays open. The constructor reads the table of contents and the metadata, and
    checks that they agree; `records` checks each member while it reads it. `edited`: somebody has changed the file by
    hand, so checksums, counts and the order of keys are not checked, but everything else is. `keys`: the keys to try if
    it is encrypted. `photos`: the source of photos that are not in the file. `lenient`: open it even if its end, its
    metadata or members are missing or damaged; see `leave_out_damaged`. Raises `InvalidBackup`, `TooLarge`,
    `KeyNeeded`, `WrongKey`.

    The attribute `key` is the key that it is encrypted with, or None.
    """

    #: Whether its metadata cannot be read, so that nobody knows of which models it held records.
    lacks_metadata = False

    def __init__(
        self,
        source: BinaryIO,
        limits: Limits,
        *,
        edited: bool = False,
        keys: Keys | None = None,
        photos: PhotoSource | None = None,
        lenient: bool = False,
    ) -> None:
        self._edited = edited
        self._lenient = lenient
        self._limits = limits
        self._photos = photos
        # The thread belongs to the archive, which its user closes, and not to a generator: the garbage collector closes
        # an unfinished generator at any moment and in any thread, where waiting might deadlock.
        self._unpacker = worker()
        #: The text of what can be read of damaged members, and where that of each begins and ends.
        self._remains: Any = None
        self._remaining: dict[str, tuple[int, int]] = {}
        self._size = source.seek(0, 2)
        if self._size == 0:
            raise InvalidBackup(_("The file is empty."))
        self._zip = self._opened(source)
        members = members_of(self._zip.infolist())
        self.is_encrypted = any(info.flag_bits & encryption.FLAG for info in self._zip.infolist())
        self.key = self._key_of(members, keys or Keys()) if self.is_encrypted else None
        metadata = self._parsed_metadata(members)
        self._check_entries()
        self._entries = dict(members)
        self.metadata = replace(self._with_members(metadata), key_id=self.key.id if self.key else "")

    def _opened(self, source: BinaryIO) -> zipfile.ZipFile:
        """Return the ZIP. Raises `InvalidBackup` if it is none, or if its end is missing."""
        try:
            with _zip_errors(METADATA):
                file = _BoundedReads(source, self._limits)
                opened = zipfile.ZipFile(file)
                file.is_directory = False
            return opened
        except InvalidBackup as error:
            source.seek(0)
            if source.read(2) != b"PK":
                raise foreign.no_zip(source) from error
            if not isinstance(error, DamagedBackup):
                raise
            cause = error
        with _zip_errors(METADATA):
            rest = CutOff(source, self._limits)
        names = [shown(name) for name, _info in members_of(rest.infolist())]
        if self._lenient and names:
            return rest
        rest.close()
        if not names:
            raise DamagedBackup(
                _("The file is damaged: part of it is missing or was changed."), offer=""
            ) from cause
        raise DamagedBackup(
            _(
                "The end of the file is missing or damaged, as after a download that was interrupted, or on a full "
                "disk. It begins with these files."
            ),
            [*names[:MOST_NAMED], *(["…"] if len(names) > MOST_NAMED else [])],
        ) from cause

    def __enter__(self) -> Archive:
        return self

    def __exit__(self, *error: object) -> None:
        self._unpacker.shutdown(cancel_futures=True)
        self._zip.close()
        if self._remains:
            self._remains.close()

    def is_in_part(self, label: str) -> bool:
        """Tell whether `leave_out_damaged` has left out records of a model."""
        return self.metadata.models[label].file in self._remaining

    @property
    def unpacked_size(self) -> int:
        """The bytes of all members, as the table of contents says."""
        return sum(info.file_size for info in self._zip.infolist())

    def _key_of(self, members: list[tuple[str, zipfile.ZipInfo]], keys: Keys) -> Key:
        """Return the key that opens the metadata. Raises `KeyNeeded`, `WrongKey`; `InvalidBackup` for a file that names
        no key, and is none of ours."""
        info = self._metadata_of(members)
        if info is not None:
            self._check_entry(info)
        encryption.check_available()
        opens = partial(self._opens, info)
        if keys.given and opens(keys.given):
            return keys.given
        tried = [keys.given] if keys.given else []
        for key in keys.others():
            if opens(key):
                return key
            tried.append(key)
        # Only now: README.txt may be damaged, and whoever has the key does not need it.
        key_id = encryption.key_id_in(self._zip.comment) or encryption.key_id_in(self._readme_of(members))
        if fitting := next((key for key in tried if key.id == key_id), None):
            if self._lenient:
                return fitting
            raise damaged(METADATA)
        if not key_id:  # ours have it twice
            raise foreign.encrypted()
        if keys.given:
            raise WrongKey(
                _("This is not the key of the backup. It needs the key with the id %(key_id)s.")
                % {"key_id": key_id},
                key_id=key_id,
            )
        raise key_needed(key_id)

    def _readme_of(self, members: list[tuple[str, zipfile.ZipInfo]]) -> bytes:
        """Return the beginning of README.txt, if it is in clear: some tools drop the comment of a ZIP."""
        info = next((info for name, info in members if name == README_FILE), None)
        if info is None or info.flag_bits & encryption.FLAG:
            return b""
        self._check_entry(info)
        with _zip_errors(README_FILE), self._open(info) as file:
            return file.read(BLOCK)

    def _opens(self, info: zipfile.ZipInfo | None, key: Key) -> bool:
        if info is None:
            return False
        try:
            with _zip_errors(METADATA), self._zip.open(encryption.raw(info)) as file:
                return encryption.opens(file, info, key)
        except DamagedBackup:
            if self._lenient:
                return False
            raise

    @contextmanager
    def _open(self, info: zipfile.ZipInfo) -> Iterator[encryption.Readable]:
        """Open an entry for reading: `read(size)` returns at most `size` bytes, and b"" at the end."""
        if info.flag_bits & encryption.FLAG:
            assert self.key is not None  # without it, the metadata could not have been read
            with self._zip.open(encryption.raw(info)) as file:
                yield encryption.Decryptor(file, info, self.key)
            return
        with self._zip.open(info) as file:
            if info.compress_type == zipfile.ZIP_DEFLATED:
                file._decompressor = deflate.decompressor()  # type: ignore[attr-defined]  # as in `Writer.write`
            yield file

    def _metadata_of(self, members: list[tuple[str, zipfile.ZipInfo]]) -> zipfile.ZipInfo | None:
        """Return the entry of the metadata; None if a lenient archive has lost it, with its end or without."""
        info = next((info for name, info in members if name == METADATA), None)
        if info is None and not isinstance(self._zip, CutOff):
            error = foreign.no_metadata(name for name, _info in members)
            if not (self._lenient and isinstance(error, DamagedBackup)):
                raise error
        return info

    def _parsed_metadata(self, members: list[tuple[str, zipfile.ZipInfo]]) -> Metadata:
        """Return `metadata.json`, parsed. In place of one that is damaged, a lenient archive takes what the ZIP tells:
        it is then read like a file of version 1.0. Whoever makes a file gains nothing by that: they can leave it out.
        """
        info = self._metadata_of(members)
        try:
            if info is not None:
                return parse_metadata(self._read_metadata(info), edited=self._edited)
        except DamagedBackup as error:
            has_records = any(RECORDS_FILE.fullmatch(name) for name, _info in members)
            error.offer = "leave_out" if has_records else ""
            if not (has_records and self._lenient):
                raise
        self.lacks_metadata = True
        return lost_metadata(_newest(members), edited=self._edited)

    def _read_metadata(self, info: zipfile.ZipInfo) -> Any:
        self._check_entry(info)
        if info.file_size > max(self._limits.metadata, info.compress_size * self._limits.ratio):
            raise metadata_too_long()
        buffer = bytearray()
        with _zip_errors(METADATA), self._open(info) as file:  # `ZipFile.read` would unpack everything
            while block := file.read(BLOCK):
                buffer += block
                self._limits.check_metadata(len(buffer))
        text = bytes(buffer).removeprefix(codecs.BOM_UTF8)  # some editors add it
        # Before it is parsed, since that takes many times as much memory. Models have checksums, too.
        most_photos = min(text.count(b'"sha256"'), self._limits.photos)
        self._limits.check_metadata(len(text), most_photos)
        if has_more_values(text, self._limits.values + 4 * most_photos):
            raise metadata_too_long()
        try:
            orjson.loads(text)  # refuses halves of surrogate pairs
            content = json.loads(text, object_pairs_hook=_each_once)
        except _TwiceError as error:
            raise DamagedBackup(
                _("metadata.json cannot be read: “%(name)s” is in it twice.") % {"name": shown(str(error))}
            ) from error
        except (ValueError, RecursionError) as error:
            raise DamagedBackup(_("metadata.json cannot be read: it is not JSON.")) from error
        photos = content.get(MEDIA.key) if isinstance(content, dict) else None
        self._limits.check_metadata(len(text), len(photos) if isinstance(photos, list) else 0)
        return content

    def _check_entries(self) -> None:
        """Check the ZIP's whole table of contents, including entries that are passed over."""
        infos = self._zip.infolist()
        self._limits.check_members(len(infos))
        if min(info.header_offset for info in infos) > 0:
            raise InvalidBackup(_("There is something before the ZIP in this file, so it is not a backup."))
        names = set()
        for info in infos:
            self._check_entry(info)
            name = slashed(info)
            if name in names:
                raise InvalidBackup(_("The file holds “%(name)s” twice.") % {"name": shown(name)})
            names.add(name)
        total = self.unpacked_size
        self._limits.check_size(total)
        if total > 10 * 1024 * 1024 and total > self._size * self._limits.ratio:
            raise TooLarge(
                _("The file would grow more than %(ratio)s-fold when unpacked; no backup does.")
                % {"ratio": self._limits.ratio}
            )

    def _check_entry(self, info: zipfile.ZipInfo) -> None:
        name = shown(info.filename)
        method: int | None = info.compress_type
        if info.flag_bits & encryption.FLAG:
            method = encryption.compression(info)
            if method is None:
                raise InvalidBackup(
                    _(
                        "The file is encrypted in a way that backups do not use. Unpack it, then pack it again."
                    )
                )
        elif self.is_encrypted and not (info.is_dir() or slashed(info).rpartition("/")[2] == README_FILE):
            raise InvalidBackup(_("“%(name)s” is not encrypted, although the backup is.") % {"name": name})
        if method not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise InvalidBackup(
                _(
                    "“%(name)s” is compressed in a way that backups do not use. Unpack the file, then pack it again."
                )
                % {"name": name}
            )
        end = info.header_offset if self._lenient else info.header_offset + info.compress_size
        if info.header_offset < 0 or end > self._size:
            raise damaged(info.filename)
        if (info.external_attr >> 16) & 0o170000 not in (0, 0o100000, 0o040000):
            raise foreign.is_link(name)

    def _with_members(self, metadata: Metadata) -> Metadata:
        """Return the metadata, which must agree with the members in the ZIP; with these if it lists none."""
        present = self._entries.keys() - {METADATA}
        if self.lacks_metadata:
            present = {name for name in present if RECORDS_FILE.fullmatch(name)}
        if not metadata.has_checksums:
            try:
                metadata = replace(metadata, members={RECORDS.key: records_by_name(sorted(present))})
            except ValueError as error:
                raise InvalidBackup(
                    _("The ZIP holds “%(name)s”, which no backup does.") % {"name": shown(str(error))}
                ) from error
        photos = metadata.photos
        self._limits.check_photos(len(photos))
        # Without its metadata, nobody knows how many photos it has.
        self._limits.check_members(len(self._zip.infolist()), None if self.lacks_metadata else len(photos))
        named = {member.file for members in metadata.members.values() for member in members.values()}
        missing = named - present
        if self._edited or self._lenient or missing.issuperset(photo.file for photo in photos.values()):
            missing -= {photo.file for photo in photos.values()}
        for name in sorted(missing) if not self._lenient else ():
            raise foreign.missing(name)
        for name in sorted(present - named):
            raise InvalidBackup(
                _("The ZIP holds “%(name)s”, which metadata.json does not list.") % {"name": shown(name)}
            )
        for photo in photos.values():
            if photo.file in self._entries and metadata.is_sealed:
                self._check_size_of(photo, self._entries[photo.file].file_size)
        return metadata

    def _check_size_of(self, photo: Photo, size: int) -> None:
        if size != photo.size:
            raise InvalidBackup(
                _("“%(file)s” has %(found)s bytes; metadata.json says %(said)s.")
                % {"file": shown(photo.file), "found": size, "said": photo.size}
            )

    @contextmanager
    def completed(self) -> Iterator[None]:
        """Raise an error at the end of the block if the process that writes the file has failed.

        See `GrowingArchive`; for a complete file, nothing is raised.
        """
        yield

    # -- members ---

    def holds(self, photo: Photo) -> bool:
        """Tell whether the photo's content is in the file itself."""
        return photo.file in self._entries

    def has_photo(self, photo: Photo) -> bool:
        """Tell whether the photo's content is there, in the file or beside it.

        A backup contains all of its photos; a kept one contains none, since they are beside it, where one may be
        missing. An edited file may contain some.
        """
        return photo.file in self._entries or (self._photos is not None and self._photos.has(photo, self.key))

    @property
    def photo_failures(self) -> list[str]:
        """What was said by places that could not be asked for photos, so that one which is missing may be there."""
        return [*self._photos.failures] if self._photos is not None else []

    def read(self, member: Member) -> Iterator[bytes]:
        """Yield a member's content, a block at a time. Size and checksum are only verified at the end.

        Raises `InvalidBackup`, possibly after some blocks.
        """
        if member.file in self._remaining:
            yield from self._read_remaining(member)
            return
        if isinstance(member, Photo) and member.file not in self._entries:
            yield from self._read_beside(member)
            return
        if member.file not in self._entries:
            raise foreign.missing(member.file)
        if isinstance(member, Photo):
            yield from self._read_photo(member)
        else:
            yield from self._read_entry(member)

    def _read_photo(self, photo: Photo) -> Iterator[bytes]:
        try:
            yield from self._read_entry(photo)
        except DamagedBackup as error:  # whoever may restore a backup may leave out its photos
            raise _damaged_photo(photo) from error

    def _read_entry(self, member: Member) -> Iterator[bytes]:
        digest = hashlib.sha256()
        entry = self._entries[member.file]
        size = 0
        with _zip_errors(member.file), self._open(entry) as file:

            def read() -> list[bytes]:
                data = file.read(AHEAD)
                digest.update(data)
                return [data[start : start + BLOCK] for start in range(0, len(data), BLOCK)]

            def begin() -> Callable[[], list[bytes]]:
                """Start reading ahead, and return a function that waits for the result.

                For a little data it is read at once: waking the thread would take longer.
                """
                return self._unpacker.submit(read).result if entry.file_size > BLOCK else read

            ahead = begin()
            while blocks := ahead():
                ahead = begin()
                size += sum(map(len, blocks))
                yield from blocks
        if size != entry.file_size:
            raise damaged(member.file)
        if self.metadata.is_sealed and digest.hexdigest() != member.sha256:
            raise InvalidBackup(
                _(
                    "“%(file)s” was changed or damaged: its checksum is not the one in metadata.json. Choose the "
                    "backup as it was made. If you changed it yourself, a superuser can restore it as an edited file."
                )
                % {"file": shown(member.file)},
                offer="edited",
            )

    def _read_beside(self, photo: Photo) -> Iterator[bytes]:
        digest = hashlib.sha256()
        size = 0
        try:
            for block in self._photos.blocks(photo, self.key) if self._photos else ():
                digest.update(block)
                size += len(block)
                if size > photo.size:
                    break
                yield block
        except FileNotFoundError as error:
            raise InvalidBackup(
                _("The photo “%(name)s” is missing.") % {"name": shown(photo.name)}
            ) from error
        except DAMAGE as error:
            raise _damaged_photo(photo) from error
        if size != photo.size or digest.hexdigest() != photo.sha256:
            raise _damaged_photo(photo)

    # -- damaged members ---

    def check(self, label: str) -> None:
        """Raise `InvalidBackup` if the records of a model are damaged: without checksums, only their text shows it."""
        for _part in (
            self.read(self.metadata.models[label]) if self.metadata.is_sealed else self.records(label)
        ):
            pass

    def leave_out_damaged(self, fits: Fits = lambda label, record: True) -> None:
        """Let damaged and missing members hold only the records before the damage, and name each in `left_out` of the
        metadata. All are read once for it. `fits`: tells whether a model takes a record, in parsed JSON.

        Records just before the place where damage shows may be damaged, too, in a way that nobody can tell.
        """
        models, left_out = dict(self.metadata.models), Places()
        self._remains = tempfile.SpooledTemporaryFile(IN_MEMORY)  # noqa: SIM115  until the archive is closed
        damage = InvalidBackup if self.metadata.is_sealed else DamagedBackup
        for label, member in models.items():
            try:
                self.check(label)
            except damage:
                models[label] = self._remains_of(label, member, fits)
                left_out.add(Place(label, None, None, self._loss_of(member, models[label].records)))
        left_out.extend(self.metadata.left_out)  # after these, since only some places are named
        members = {**self.metadata.members, RECORDS.key: models}
        self.metadata = replace(self.metadata, members=members, left_out=left_out)

    def _loss_of(self, member: Records, count: int) -> str:
        if member.file not in self._entries:
            return _("“%(file)s” is missing") % {"file": shown(member.file)}
        return _(
            "“%(file)s” is damaged: %(count)s of its %(total)s records can be read, and they may be damaged, too"
        ) % {
            "file": shown(member.file),
            "count": count,
            "total": member.records if member.records >= 0 else "?",
        }

    def _remains_of(self, label: str, member: Records, fits: Fits) -> Records:
        """Store the text of the records that can be read of a damaged member, and return that as a member."""
        digest, count = hashlib.sha256(), 0
        self._remains.seek(0, 2)
        start = self._remains.tell()

        def records() -> Iterator[bytes]:
            nonlocal count
            blocks, in_order = self._readable(member), self.metadata.is_sealed
            for record in whole_records(
                blocks, label, self._limits, in_order=in_order, fits=partial(fits, label)
            ):
                count += 1
                yield record

        for block in text_of(records()):
            digest.update(block)
            self._remains.write(block)
        self._remaining[member.file] = start, self._remains.tell()
        return Records(member.file, digest.hexdigest(), count)

    def _readable(self, member: Member) -> Iterator[bytes]:
        """Yield what can be read of a member, whatever its checksum says."""
        info = self._entries.get(member.file)
        if info is None:
            return
        with suppress(*DAMAGE), self._zip.open(encryption.raw(info)) as file:
            if info.flag_bits & encryption.FLAG:
                assert self.key is not None  # without it, the archive would not be open
                pieces, method = encryption.decrypted(file, info, self.key), encryption.compression(info)
            else:
                pieces, method = iter(partial(file.read, PIECE), b""), info.compress_type
            yield from unpacked(pieces, method or zipfile.ZIP_STORED, info.file_size)

    def _read_remaining(self, member: Member) -> Iterator[bytes]:
        place, end = self._remaining[member.file]
        while place < end:
            self._remains.seek(place)
            block = self._remains.read(min(BLOCK, end - place))
            place += len(block)
            yield block

    # -- records ---

    def lines(self, label: str) -> Iterator[Lines]:
        """Yield a model's records in batches, as the JSON text in the file. Checksum and count are only verified at the
        end. Raises `InvalidBackup`, possibly after some batches."""
        member = self.metadata.models[label]
        count = 0
        with self._layout_errors(member, lambda: count + 1):
            # An edited file may mix several layouts.
            layout = read_elements if self.metadata.is_edited else partial(read_lines, label=label)
            for lines in layout(self.read(member), limits=self._limits):
                count += lines.count
                handed_over = [lines]
                del lines  # which may be long: only whoever works with it keeps it
                yield handed_over.pop()
            if self.metadata.is_sealed and count != member.records:
                # `Lines.count` only estimates. Count again, record by record, before the file is called damaged.
                elements = read_elements(self.read(member), self._limits)
                count = sum(batch.count for batch in elements)
        self._check_count(member, count)

    def records(self, label: str, exact_json: bool = False) -> Iterator[list[Any]]:
        """Yield a model's records in batches, as parsed JSON; otherwise like `lines`.

        `exact_json`: read whole numbers of any size (slower).
        """
        count = 0
        for lines in self.lines(label):
            records = self.parse(label, lines.each, exact_json, count)
            count += len(records)
            del lines  # both may be long
            yield records
            del records

    def parse(self, label: str, lines: list[bytes], exact_json: bool = False, before: int = 0) -> list[Any]:
        """Return some of `Lines.each` as parsed JSON. `before`: how many records precede them, for messages.

        Raises `InvalidBackup`.
        """
        loads: Callable[[bytes], Any] = _loads_exactly if exact_json else orjson.loads
        member = self.metadata.models[label]
        is_one = len(lines) == 1  # and may be long
        text = lines[0] if is_one else b"[%b]" % b",".join(lines)
        if len(text) > self._limits.values:
            self._refuse_many_values(member, before, lines)
        try:
            records: list[Any] = [loads(text)] if is_one else loads(text)  # all at once, which is faster
            if len(records) == len(lines) and _is_ours(records[0] if is_one else records, text):
                return records
        except (ValueError, RecursionError):
            pass  # parse one by one below, to find the record at fault
        records = []
        try:
            for line in lines:
                loads(line)
        except (ValueError, RecursionError) as error:
            raise self._malformed(member, before, lines, loads) from error
        self._refuse_twice(member, before, lines)
        return [loads(line) for line in lines]

    def _refuse_many_values(self, member: Member, before: int, lines: list[bytes]) -> None:
        for number, line in enumerate(lines, before + 1):
            if has_more_values(line, self._limits.values):
                raise self._many_values(member, number)

    def _many_values(self, member: Member, number: int) -> TooLarge:
        return TooLarge(
            _("“%(file)s” holds a record of more than %(limit)s values, number %(number)s.")
            % {"file": shown(member.file), "limit": self._limits.values, "number": number}
        )

    def _refuse_twice(self, member: Member, before: int, lines: list[bytes]) -> None:
        """Refuse an object with the same name twice: parsers use the last one, but people see the first."""
        for number, line in enumerate(lines, before + 1):
            try:
                json.loads(line, object_pairs_hook=_each_once, parse_int=str)
            except _TwiceError as error:
                raise InvalidBackup(
                    _("“%(file)s” cannot be read: record number %(number)s has “%(name)s” twice.")
                    % {"file": shown(member.file), "number": number, "name": shown(str(error))}
                ) from error
            except RecursionError as error:
                raise self._malformed(member, number - 1, [line], json.loads) from error

    def _check_count(self, member: Records, count: int) -> None:
        if self.metadata.is_sealed and count != member.records:
            raise InvalidBackup(
                _("“%(file)s” holds %(found)s records; metadata.json says %(said)s.")
                % {"file": shown(member.file), "found": count, "said": member.records}
            )

    @contextmanager
    def _layout_errors(self, member: Member, number: Callable[[], int]) -> Iterator[None]:
        """Raise `InvalidBackup` for errors in the layout of a member, with one sentence that names it.

        `number`: returns that of the record that is read.
        """
        try:
            yield
        except RecordTooDeepError as error:
            raise self._not_json(member, number()) from error
        except TooManyValuesError as error:
            raise self._many_values(member, number()) from error
        except LayoutError as error:
            raise self._not_an_array(member) from error
        except RecordTooLongError as error:
            raise TooLarge(
                _("“%(file)s” holds a record of more than %(limit)s MB.")
                % {"file": shown(member.file), "limit": megabytes(self._limits.record)}
            ) from error

    def _malformed(
        self, member: Member, before: int, batch: list[bytes], loads: Callable[[bytes], Any]
    ) -> InvalidBackup:
        for number, piece in enumerate(batch, before + 1):
            try:
                loads(piece)
            except (ValueError, RecursionError):
                return self._not_json(member, number)
        return self._not_an_array(member)

    def _not_json(self, member: Member, number: int) -> InvalidBackup:
        return self._damaged_text(
            _("“%(file)s” cannot be read: record number %(number)s is not JSON.")
            % {"file": shown(member.file), "number": number}
        )

    def _not_an_array(self, member: Member) -> InvalidBackup:
        return self._damaged_text(
            _("“%(file)s” cannot be read: it is not a list of records.") % {"file": shown(member.file)}
        )

    def _damaged_text(self, message: str) -> InvalidBackup:
        """Return the error for a text that may have been damaged before it was packed."""
        return DamagedBackup(message, offer="" if self._lenient else "leave_out")
