"""Puts the photos of a backup into the storages of a site: see `Placing`.

A restore never overwrites or deletes a file. A photo gets its own name if that is free. If a file with the same content
has the name, nothing is done. If another file has it, the photo gets a new name, made of its checksum, and so do the
records that name it; so thumbnails and the like, which the host stores by the name of a file, stay right. Whatever
becomes of the restore, the files that records named before are unchanged.

`decide` makes all decisions without writing, for a preview, too. `place` then writes the files, before the transaction
begins. Files that no record names in the end do no harm.

Longer than most modules, since deciding and placing share their steps.
"""

from __future__ import annotations

import hashlib
import os
import posixpath
import secrets
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any, TypeVar, cast

from django.core.exceptions import SuspiciousFileOperation, ValidationError
from django.core.files.storage import FileSystemStorage, Storage
from django.core.files.uploadedfile import UploadedFile
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from .. import babybuddy, media, ownership
from ..archive import Archive, Photo
from ..archive.limits import megabytes
from ..exceptions import BackupError, InvalidBackup, StorageFailed, TooLarge
from ..kinds import Plain
from ..options import PHOTOS, SILENT, PlacedFile, Places, RecordCounter, Reporter
from ..tables import Batch, Column, Table, place_of, places_in_words
from .records import RecordReader, Renamed
from .values import not_a_file_name

T = TypeVar("T")

#: The end of the name of a file while it is written; the same as in `storage.atomic`, which removes abandoned ones.
PARTIAL = ".babybuddy.part"
#: If the own name of a photo is taken, so many digits of its checksum are added; more if that name is taken, too; and
#: random digits if all are: a restore that was killed may have left parts of the photo under these names.
DIGITS = (8, 16, 32, 64)


#: Bytes that photos which are not in the file itself may take beyond what they take once, since some have several
#: names: at least so many, and as many as they take once. Else a small file could write a photo any number of times.
REPEATED = 100 * 1024 * 1024


class State(Enum):
    """What happens to a photo."""

    #: It is written to the storage.
    ADDED = "added"
    #: It is there already, with the same content.
    UNCHANGED = "unchanged"
    #: It may not be put there. Its name is removed from records, unless a file of that name exists.
    REFUSED = "refused"
    #: The storage cannot store it. Records keep the name, as with a backup without photos.
    UNPLACED = "unplaced"


@dataclass(eq=False, slots=True)
class _File:
    """A photo of the backup that records name, for one storage. `name`: the name that it gets there. `place`: label,
    key and field of the first record that names it. `columns`: model label -> the columns that name it. `reason`: why
    it is refused. `is_taken`: whether another file has its own name. `is_repeated`: whether it has the content of an
    earlier one, and is not in the file of the backup."""

    photo: Photo
    storage: Storage
    name: str
    place: tuple[str, Plain, str]
    columns: list[tuple[str, Column]] = field(default_factory=list)
    state: State = State.ADDED
    reason: str = ""
    is_taken: bool = False
    is_repeated: bool = False

    @property
    def max_length(self) -> int | None:
        return min((column.field.max_length or 100 for _label, column in self.columns), default=None)


class Placing:
    """Decides where the photos of a backup go, and puts them there. `leave_out`, `as_it_was`: see `RestoreOptions`."""

    def __init__(
        self,
        archive: Archive,
        reporter: Reporter = SILENT,
        *,
        leave_out: bool = False,
        as_it_was: bool = False,
    ) -> None:
        self._archive, self._reporter = archive, reporter
        self._leave_out, self._as_it_was = leave_out, as_it_was
        self._files: list[_File] | None = None
        self._placed: list[_File] = []
        #: Bytes of the photos that are not in the file of the backup: of each once, and of the repeated ones.
        self._once = self._repeated = 0
        #: Whether a storage failed while writing, so that a file may be there all the same.
        self._is_uncertain = False
        #: (Model label, field) -> name in the backup -> the name here, for names that differ.
        self.renamed: Renamed = {}
        #: Whether `place` had to deviate from the decisions, so that a plan that was built before is out of date.
        self.has_moved = False

    # -- deciding ---

    def decide(
        self, reader: RecordReader, tables: Sequence[Table], without: Callable[[Table, Batch], Batch]
    ) -> None:
        """Decide about all photos that records of these tables name. Writes nothing. To be called once.

        `without`: see `RecordReader.batches`. Raises `InvalidBackup`; `StorageFailed` if a storage does not answer,
        or has no room.
        """
        if self._files is not None:
            return
        self._files = self._named(reader, tables, without) if self._archive.metadata.photos else []
        taken = self._taken()
        beside = self._note_repeated()
        counter = RecordCounter(self._reporter, len(self._files))
        for file in sorted(self._files, key=lambda file: file.is_repeated):
            if file.state is State.ADDED:
                with self._left_out(file):
                    self._decide(file, is_taken=file in taken)
                    if file in beside and file.state in (State.ADDED, State.UNCHANGED):
                        self._once += file.photo.size
            counter.add(PHOTOS, 1)
        self._check_room()
        self._rename()

    def _named(
        self, reader: RecordReader, tables: Sequence[Table], without: Callable[[Table, Batch], Batch]
    ) -> list[_File]:
        """Return the photos that records name, in the order of the archive."""
        photos = self._archive.metadata.photos
        files: dict[tuple[str, int], _File] = {}
        for table in tables:
            columns = media.file_columns(table)
            for batch in reader.batches(table, without) if columns else ():
                for place, column in columns:
                    storage = media.storage_of(column)
                    for key, name in zip(batch[0], batch[place], strict=True):
                        if name not in photos:
                            continue
                        file = files.get((name, id(storage)))
                        if file is None:
                            file = _File(photos[name], storage, name, (table.label, key, column.name))
                            files[name, id(storage)] = file
                        if (table.label, column) not in file.columns:
                            file.columns.append((table.label, column))
                del batch  # its notes may be long, and so may the next ones
        order = {name: number for number, name in enumerate(photos)}
        return sorted(files.values(), key=lambda file: order[file.photo.name])

    def _note_repeated(self) -> set[_File]:
        """Note which of the photos that are not in the file of the backup have the content of an earlier one. Returns
        those that have not."""
        first: dict[str, _File] = {}
        for file in self._files or ():
            if not self._archive.holds(file.photo):
                file.is_repeated = first.setdefault(file.photo.sha256, file) is not file
        return {*first.values()}

    def _check_repeated(self, photo: Photo) -> None:
        """Raise `TooLarge` if there is one photo too many that has the content of another one."""
        limit = max(self._once, REPEATED)
        if self._repeated + photo.size > limit:
            text = _(
                "The same photos have so many names in the backup that they would take more than %(limit)s MB beyond "
                "what they take once. Download the kept backup, and restore the file, which has no such limit."
            )
            raise TooLarge(text % {"limit": megabytes(limit)})
        self._repeated += photo.size

    def _taken(self) -> set[_File]:
        """Return the photos whose name is taken by a file. Storages are asked to list folders, not for each file."""
        taken: set[_File] = set()
        by_storage: dict[int, list[_File]] = {}
        for file in self._files or ():
            by_storage.setdefault(id(file.storage), []).append(file)
        for files in by_storage.values():
            column = files[0].columns[0][1]
            names = {file.name for file in files}
            with self._left_out(*files):
                gone = _ask(lambda column=column, names=names: media.missing(column, names))  # type: ignore[misc]
                taken |= {file for file in files if file.name not in gone}
        return taken

    def _decide(self, file: _File, *, is_taken: bool) -> None:
        photo = file.photo
        file.is_taken = is_taken
        # In an edited backup, the checksum may be that of another photo.
        if is_taken and self._archive.metadata.is_sealed and self._is_same(file, photo.size, photo.sha256):
            file.state = State.UNCHANGED
            return
        if babybuddy.is_thumbnail(photo.name) and not self._as_it_was:
            file.state, file.reason = State.REFUSED, not_a_file_name()
            return
        if not self._archive.has_photo(photo):
            file.state = State.UNPLACED
            return
        if self._as_it_was and not is_taken:  # its content is only checked when it is placed
            return
        if file.is_repeated and not self._as_it_was:
            self._check_repeated(photo)
        with self._copy(photo) as copy:
            size, digest = copy.size or 0, copy.digest
            if is_taken and self._is_same(file, size, digest):
                file.state = State.UNCHANGED
            elif not self._as_it_was and (
                reason := next(filter(None, (refused(column, copy) for _label, column in file.columns)), "")
            ):
                file.state, file.reason = State.REFUSED, reason
            else:
                self._find_name(file, size, digest)

    def _find_name(self, file: _File, size: int, digest: str) -> None:
        """Choose the name of a photo: its own, or the first one made of its checksum that is free or has its
        content."""
        for name in self._names_of(file, digest) if file.is_taken else ():
            file.name = name
            is_same = _ask(lambda: media.content_is(file.storage, file.name, size, digest))
            if is_same is not False:
                file.state = State.UNCHANGED if is_same else State.ADDED
                return

    def _names_of(self, file: _File, digest: str) -> Iterator[str]:
        folder, base = posixpath.split(file.photo.name)
        stem, ending = posixpath.splitext(base)
        for mark in (*(digest[:digits] for digits in DIGITS), secrets.token_hex(16)):
            tail = f"_{mark}{ending}"
            room = (file.max_length or len(file.photo.name) + len(tail)) - len(tail)
            yield posixpath.join(folder, f"{stem[: max(room - len(folder) - 1, 0)]}{tail}")

    def _is_same(self, file: _File, size: int, digest: str) -> bool:
        return _ask(lambda: media.content_is(file.storage, file.name, size, digest)) is True

    def _check_room(self) -> None:
        """Raise `StorageFailed` if a disk has no room for its photos."""
        needed: dict[int, int] = {}
        folders: dict[int, Path] = {}
        files = [file for file in self._files or () if file.state is State.ADDED]
        for file in files:
            if folder := _folder_of(file.storage):
                folder = next(path for path in (folder, *folder.parents) if path.exists())
                device = folder.stat().st_dev
                folders[device] = folder
                needed[device] = needed.get(device, 0) + file.photo.size
        for device, size in needed.items():
            free = shutil.disk_usage(folders[device]).free
            if size > free:
                text = _(
                    "The photos of the backup need %(needed)s MB, and there are only %(free)s MB free. Nothing was "
                    "changed."
                )
                with self._left_out(*files):
                    raise StorageFailed(text % {"needed": megabytes(size), "free": megabytes(free)})

    @contextmanager
    def _left_out(self, *files: _File) -> Iterator[None]:
        """Leave out photos that are damaged, or whose storage fails, in the block. Without `leave_out`, the error is
        raised, and offers that option."""
        try:
            yield
        except (InvalidBackup, StorageFailed) as error:
            if not self._leave_out:
                error.offer = "leave_out"
                raise
            for file in files:
                file.state, file.reason = State.UNPLACED, error.message

    def _rename(self) -> None:
        renamed: dict[tuple[str, str], dict[str, Plain]] = {}
        for file in self._files or ():
            name = file.photo.name
            for label, column in file.columns:
                new: Plain = file.name if file.state in (State.ADDED, State.UNCHANGED) else name
                if file.state is State.REFUSED and not file.is_taken and _may_be_empty(column):
                    new = None if column.field.null else ""
                if new != name:
                    renamed.setdefault((label, column.name), {})[name] = new
        self.renamed = renamed

    # -- the decisions, for people ---

    def count(self, state: State) -> int:
        """Return the number of photos with this state."""
        return sum(file.state is state for file in self._files or ())

    @property
    def restored(self) -> int:
        """How many photos are there afterwards, whether this restore added them or not."""
        return self.count(State.ADDED) + self.count(State.UNCHANGED)

    def accounted_for(self) -> set[tuple[str, str, str]]:
        """Return label, field and name of the photos in records of the backup that will be there, or were refused."""
        return {
            (label, column.name, file.photo.name)
            for file in self._files or ()
            if file.state is not State.UNPLACED
            for label, column in file.columns
        }

    def there(self) -> set[str]:
        """Return the names, in the backup, of the photos in its records that will be there."""
        there = (State.ADDED, State.UNCHANGED)
        return {file.photo.name for file in self._files or () if file.state in there}

    @property
    def warnings(self) -> list[str]:
        """Warnings about photos that are left out."""
        lines = []
        if refused := self._places(State.REFUSED):
            text = ngettext(
                "%(n)s photo is left out, since it is none that its field takes: %(places)s.",
                "%(n)s photos are left out, since they are none that their fields take: %(places)s.",
                refused.total,
            )
            lines.append(text % {"n": refused.total, "places": _in_words(refused)})
        if unplaced := self._places(State.UNPLACED):
            text = ngettext(
                "%(n)s photo is left out: %(places)s.",
                "%(n)s photos are left out: %(places)s.",
                unplaced.total,
            )
            lines.append(text % {"n": unplaced.total, "places": _in_words(unplaced)})
        return lines

    def _places(self, state: State) -> Places:
        """Return the first record of each photo with this state, and with a reason."""
        places = Places()
        for file in self._files or ():
            if file.state is state and file.reason:
                label, key, name = file.place
                places.add(place_of(label, key, name, f"{file.photo.name}: {file.reason}"))
        return places

    # -- placing ---

    def place(self, note: Callable[[Sequence[PlacedFile]], None]) -> None:
        """Write the photos that are not there yet to their storages.

        `note`: is called with files before they are written. Raises `StorageFailed`, `InvalidBackup`; `take_back`
        should be called then.
        """
        files = [file for file in self._files or () if file.state is State.ADDED]
        if not files:
            return
        before = self.renamed, self.warnings
        note([_placed(file) for file in files])
        counter = RecordCounter(self._reporter, len(files))
        for file in files:
            with self._left_out(file):
                self._place(file, note)
            counter.add(PHOTOS, 1)
        if self._placed and hasattr(os, "sync"):
            os.sync()  # all files at once: the database must not name files that a power cut could still delete
        self._rename()
        self.has_moved = before != (self.renamed, self.warnings)

    def _place(self, file: _File, note: Callable[[Sequence[PlacedFile]], None]) -> None:
        path = _path_of(file)
        above = path and ownership.folder_above(path)
        with self._copy(file.photo, _folder_of(file.storage)) as copy:
            size, digest = copy.size or 0, copy.digest
            is_same = _ask(lambda: media.content_is(file.storage, file.name, size, digest))
            if is_same is False:  # a file appeared meanwhile, or the file system considers two names the same
                file.is_taken = True
                self._find_name(file, size, digest)
                is_same = file.state is State.UNCHANGED
                note([_placed(file)])
            if is_same:
                file.state = State.UNCHANGED
            else:
                self._save(file, copy, note)
                if above and (path := _path_of(file)):
                    ownership.give_as(above, path)

    def _save(self, file: _File, copy: _Copy, note: Callable[[Sequence[PlacedFile]], None]) -> None:
        copy.seek(0)
        noted = file.name
        try:
            file.name = _ask(lambda: file.storage.save(noted, copy, max_length=file.max_length))
        except StorageFailed as error:
            cause = error.__cause__
            if not media.cannot_be_a_name(cause) and not isinstance(cause, SuspiciousFileOperation):
                self._is_uncertain = True
                raise
            file.state, file.reason = State.REFUSED, not_a_file_name()
        else:
            self._placed.append(file)
            if file.name != noted:  # a storage may choose another name
                note([_placed(file)])

    def take_back(self) -> bool:
        """Delete the files that were written, since nothing names them. Returns whether all of them are gone."""
        while self._placed:
            file = self._placed[-1]
            try:
                file.storage.delete(file.name)
            except Exception:  # noqa: BLE001  any storage; they are removed later
                return False
            self._placed.pop()
        return not self._is_uncertain

    @contextmanager
    def _copy(self, photo: Photo, folder: Path | None = None) -> Iterator[_Copy]:
        """Copy a photo from the archive into a temporary file, and check it.

        `folder`: the folder of a storage, which can then move the file instead of copying it. Raises `InvalidBackup`,
        `StorageFailed`.
        """
        path = Path(folder or tempfile.gettempdir()) / f".{secrets.token_hex(12)}{PARTIAL}"
        mode = 0o666 if folder else 0o600  # minus the umask, as if the storage had made it
        try:
            if folder:
                folder.mkdir(parents=True, exist_ok=True)
            with open(path, "xb+", opener=lambda name, flags: os.open(name, flags, mode)) as file:
                digest = hashlib.sha256()
                for block in self._archive.read(photo):
                    digest.update(block)
                    file.write(block)
                yield _Copy(file, photo.name, digest.hexdigest())
        except OSError as error:
            raise _not_stored(error) from error
        finally:
            path.unlink(missing_ok=True)  # it is missing if a storage moved it


class _Copy(UploadedFile):  # type: ignore[type-arg]  # it has none when it runs
    """A photo as an uploaded file, for forms and storages. `FileSystemStorage` moves a file that has a path."""

    def __init__(self, file: Any, name: str, digest: str) -> None:
        super().__init__(file, name, size=file.seek(0, os.SEEK_END))
        file.seek(0)  # this also writes what is still in the buffer
        self.digest = digest

    def temporary_file_path(self) -> str:
        return str(cast(Any, self.file).name)


def _in_words(places: Places) -> str:
    return "; ".join(line.rstrip(".") for line in places_in_words(places))


def refused(column: Column, file: UploadedFile[bytes]) -> str:
    """Return why the form of a field would refuse an uploaded file; "" if it would not."""
    model_field: Any = column.field
    try:
        form_field = model_field.formfield()
        if form_field is not None:
            file.seek(0)
            form_field.clean(file)
        for validate in model_field.validators:
            file.seek(0)
            validate(file)
    except ValidationError as error:
        return " ".join(map(str, error.messages))
    except Exception as error:  # noqa: BLE001  a validator may be anybody's code, and expect no such file
        return type(error).__name__
    finally:
        file.seek(0)
    return ""


def _placed(file: _File) -> PlacedFile:
    label, column = file.columns[0]
    return PlacedFile(label, column.name, file.name, file.photo.size, file.photo.sha256)


def _may_be_empty(column: Column) -> bool:
    return bool(column.field.null or column.field.blank)


def _folder_of(storage: Storage) -> Path | None:
    """Return the folder of a storage, which may not be there yet; None if it is no folder of this machine."""
    return Path(storage.location) if isinstance(storage, FileSystemStorage) else None


def _path_of(file: _File) -> Path | None:
    """Return the path that a file has, or would have; None if its storage is no folder of this machine."""
    folder = _folder_of(file.storage)
    return folder and Path(file.storage.path(file.name))


def _ask(question: Callable[[], T]) -> T:
    """Return what `question` returns. Raises `StorageFailed` for whatever a storage raises."""
    try:
        return question()
    except BackupError:
        raise
    except Exception as error:
        raise _not_stored(error) from error


def _not_stored(error: Exception) -> StorageFailed:
    reason = (error.strerror if isinstance(error, OSError) else None) or type(error).__name__
    return StorageFailed(
        _("The photos of the backup cannot be stored (%(reason)s). Nothing was changed.") % {"reason": reason}
    )
