"""The BACKUP_* settings, read at each use: `conf.root`, `conf.max_upload_size` …

Set them in the settings module or, with babybuddy_settings_snippet.py, in environment variables of the same names. A
value of the wrong type raises `WrongSettings`; `manage.py check` reports it in advance.
"""

from __future__ import annotations

import datetime as dt
import os
import re
from pathlib import Path
from typing import Any, TypeVar, cast
from urllib.parse import urlsplit

from cronsim import CronSim, CronSimError
from django.conf import settings

from .exceptions import WrongSettings

T = TypeVar("T")
MIB = 1024 * 1024
#: The schedules that have a name.
DAILY, HOURLY, WEEKLY, OFF = "daily", "hourly", "weekly", "off"
#: Defaults that also apply if the setting is wrong: see `if_right`.
AUTOMATIC_SECONDS, MAX_UNCOMPRESSED_SIZE, MAX_PHOTOS = 3600, 4096 * MIB, 50_000
#: The most seconds of a setting: no timer of an operating system fails at 30 years.
LONGEST = 10**9
#: The places that BACKUP_ENCRYPT may name in addition to locations: see `storage.keys.Place`.
PLACES = ("download", "local")
#: The rules that BACKUP_KEEP may name, in the order in which messages list them.
PERIODS = ("last", "hourly", "daily", "weekly", "monthly", "yearly")
#: Settings that contain a password, a key, or an address that is a secret by itself. `apps` hides their values.
SECRETS = ("BACKUP_LOCATIONS", "BACKUP_KEY", "BACKUP_PING_URL", "BACKUP_WEBHOOK_URL")


class Hidden(str):
    """A text with passwords, which Django's error reports and `manage.py diffsettings` do not show."""

    def __repr__(self) -> str:
        return "'********'"


def hidden(value: Any) -> Any:
    """Return the value of a setting, with each text in it hidden."""
    if isinstance(value, str):
        return Hidden(value)
    if isinstance(value, dict):
        return {name: hidden(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [*map(hidden, value)] if isinstance(value, list) else tuple(map(hidden, value))
    return value


def aware_now() -> dt.datetime:
    """Return the present time, aware, whatever USE_TZ says."""
    return dt.datetime.now(dt.timezone.utc)


#: Moments before the first of these, or from the second on, have no local time in some time zone: pages would fail.
_FIRST, _LAST = (dt.datetime(*date, tzinfo=dt.timezone.utc) for date in ((1, 1, 2), (9999, 12, 31)))


def in_every_zone(moment: dt.datetime) -> dt.datetime:
    """Return the moment. Raises `ValueError` if it is not aware, or no moment that every time zone has."""
    if moment.tzinfo is None or not _FIRST <= moment < _LAST:
        raise ValueError(moment)
    return moment


class Conf:
    # A docstring is shown to people as what the setting is: see `checks.check_settings`.

    @property
    def max_upload_size(self) -> int:
        """BACKUP_MAX_UPLOAD_SIZE, in bytes (100 MB): larger files are not accepted for a restore.

        A family's year is about 1 MB. The page does not depend on the limit of a web server in front: it sends pieces.
        """
        return _number("BACKUP_MAX_UPLOAD_SIZE", 100 * MIB, least=1)

    @property
    def max_uncompressed_size(self) -> int:
        """BACKUP_MAX_UNCOMPRESSED_SIZE, in bytes (4 GB): a backup that unpacks to more is refused.

        Real records compress to a tenth or a twentieth, so a backup of 100 MB unpacks to 1 or 2 GB. Twice that leaves
        room, and still limits the damage that a malicious file can do (deflate compresses up to 1000 to 1).
        """
        return _number("BACKUP_MAX_UNCOMPRESSED_SIZE", MAX_UNCOMPRESSED_SIZE, least=1)

    @property
    def photos(self) -> bool:
        """BACKUP_PHOTOS (True): whether kept backups include uploaded photos. Each photo is stored once, however many
        backups include it.
        """
        value = getattr(settings, "BACKUP_PHOTOS", True)
        if not isinstance(value, bool):
            raise WrongSettings.because("BACKUP_PHOTOS must be True or False.")
        return value

    @property
    def max_photos(self) -> int:
        """BACKUP_MAX_PHOTOS (50,000): the most photos of a backup. Others are left out, and named. A file with more is
        refused.

        Each takes about two kilobytes of memory while a backup is made or read.
        """
        return _number("BACKUP_MAX_PHOTOS", MAX_PHOTOS, least=1)

    @property
    def root(self) -> Path:
        """BACKUP_ROOT: the folder for kept backups, for uploads that wait for their confirmation, and for backups that
        `manage.py backup` makes without `--output`.

        By default `backups` beside the SQLite database file, which survives an update of a container. With another
        database, `data/backups` in the host's folder, or, if uploaded photos are outside that, `backups` beside them,
        since the server can write there. A relative path starts at the host's folder.
        """
        base = Path(getattr(settings, "BASE_DIR", "."))
        value = getattr(settings, "BACKUP_ROOT", None)
        if value is None or value == "":
            return _default_root(base.absolute())
        if not isinstance(value, str | os.PathLike):
            raise WrongSettings.because("BACKUP_ROOT must be the path of a folder.")
        try:
            return base.absolute() / Path(value).expanduser()
        except RuntimeError as error:  # there is no such user, or no HOME
            raise WrongSettings.because(
                "BACKUP_ROOT must be the path of a folder. Nobody knows the home folder that it begins with."
            ) from error

    @property
    def exclude(self) -> list[str]:
        """BACKUP_EXCLUDE (none): models or whole apps to leave out: `["imports.log", "metrics"]`."""
        value = getattr(settings, "BACKUP_EXCLUDE", ())
        if not isinstance(value, list | tuple | set | frozenset) or not all(
            isinstance(i, str) for i in value
        ):
            raise WrongSettings.because("BACKUP_EXCLUDE must be a list of names of models or apps.")
        return [name.strip() for name in value if name.strip()]

    @property
    def require_superuser(self) -> bool:
        """BACKUP_REQUIRE_SUPERUSER (False): whether only superusers, not all staff, may back up and restore."""
        value = getattr(settings, "BACKUP_REQUIRE_SUPERUSER", False)
        if not isinstance(value, bool):
            raise WrongSettings.because("BACKUP_REQUIRE_SUPERUSER must be True or False.")
        return value

    @property
    def safety_copies(self) -> int:
        """BACKUP_SAFETY_COPIES (5): how many of the backups made just before a restore are kept."""
        return _number("BACKUP_SAFETY_COPIES", 5, least=1)

    @property
    def staged_seconds(self) -> int:
        """BACKUP_STAGED_SECONDS (3600): how long an uploaded file waits for its confirmation."""
        return _seconds("BACKUP_STAGED_SECONDS", 3600)

    @property
    def upgrade_seconds(self) -> int:
        """BACKUP_UPGRADE_SECONDS (1800): how long it may take to bring an older backup to today's schema.

        The data of a family's year takes seconds. A web server in front may end a request earlier.
        """
        return _seconds("BACKUP_UPGRADE_SECONDS", 1800)

    @property
    def schedule(self) -> str:
        """BACKUP_SCHEDULE ("daily"): when backups are made by themselves: `daily` (at night), `hourly`, `weekly`,
        `off`, or the five fields of a cron job, such as `30 2 * * *`, in the zone TIME_ZONE.
        """
        value = getattr(settings, "BACKUP_SCHEDULE", DAILY)
        text = value.strip().lower() if isinstance(value, str) else ""
        if text not in (DAILY, HOURLY, WEEKLY, OFF) and not _is_cron(text):
            raise WrongSettings.because(
                "BACKUP_SCHEDULE must be daily, hourly, weekly, off, or five fields as cron takes them."
            )
        return text

    @property
    def keep(self) -> str:
        """BACKUP_KEEP ("last=7,weekly=4,monthly=12,yearly=all"): which automatic backups stay: the newest ones, and the
        newest one of each of so many hours, days, weeks, months and years.
        """
        value = getattr(settings, "BACKUP_KEEP", "last=7,weekly=4,monthly=12,yearly=all")
        keep_rules(value)
        return str(value)

    @property
    def notify(self) -> list[str]:
        """BACKUP_NOTIFY (none): the addresses that get a mail when automatic backups begin to fail, or work again.

        By default all active superusers who have an address. `off`: nobody gets one.
        """
        value = getattr(settings, "BACKUP_NOTIFY", ())
        value = [value] if isinstance(value, str) else value
        if not isinstance(value, list | tuple) or not all(isinstance(i, str) for i in value):
            raise WrongSettings.because("BACKUP_NOTIFY must be a list of e-mail addresses, or off.")
        addresses = [text.strip() for text in value if text.strip()]
        if addresses != [OFF] and not all("@" in text for text in addresses):
            raise WrongSettings.because("BACKUP_NOTIFY must be a list of e-mail addresses, or off.")
        return addresses

    @property
    def ping_url(self) -> str:
        """BACKUP_PING_URL (none): an address that is requested after each automatic backup: unchanged after a success,
        with `/fail` appended after a failure, and with `/start` before the backup.

        Made for healthchecks.io, Uptime Kuma and the like, which alert you if no request has come for too long.
        """
        return _url("BACKUP_PING_URL")

    @property
    def webhook_url(self) -> str:
        """BACKUP_WEBHOOK_URL (none): an address that the status is sent to as JSON when it has changed."""
        return _url("BACKUP_WEBHOOK_URL")

    @property
    def prove(self) -> str:
        """BACKUP_PROVE ("all"): which backups are proved automatically, that is, restored into a throw-away database:
        each one that the schedule makes, and once a week an older one, in any place (`all`) or only in BACKUP_ROOT
        (`local`); or `off`.
        """
        value = getattr(settings, "BACKUP_PROVE", "all")
        if value not in ("all", "local", OFF):
            raise WrongSettings.because("BACKUP_PROVE must be all, local or off.")
        return str(value)

    @property
    def locations(self) -> dict[str, str]:
        """BACKUP_LOCATIONS (none): the locations of copies of kept backups, each with a name and an address:
        `nas=/mnt/nas/babybuddy,cloud=storage:offsite`. An address is a folder, an alias of STORAGES, or begins with
        s3://, sftp:// or webdavs://. Characters with a special meaning in it, also commas, must be percent-encoded.
        """
        # By their names, in order. Addresses contain passwords, so messages must not contain addresses, and tracebacks
        # do not show them.
        value: Any = getattr(settings, "BACKUP_LOCATIONS", None) or ()
        if isinstance(value, dict):
            entries = [*value.items()]
        else:
            texts = _entries(value) if isinstance(value, str) else value
            entries = [_named(entry) for entry in (texts if isinstance(texts, list | tuple) else [texts])]
        addresses: dict[str, str] = {}
        for number, (name, address) in enumerate(entries, 1):
            if not isinstance(name, str) or not re.fullmatch(r"[a-z0-9-]{1,40}", name) or not address:
                raise WrongSettings.because(
                    f"BACKUP_LOCATIONS must be like nas=/mnt/nas/babybuddy,cloud=storage:offsite; entry {number} is "
                    "not: a name of small letters, digits and hyphens, an equals sign, an address."
                )
            if name in (*PLACES, "all", OFF) or name in addresses:
                why = "is named twice" if name in addresses else "has a meaning of its own, so it is no name"
                raise WrongSettings.because(f"BACKUP_LOCATIONS must be changed: {name} {why}.")
            addresses[name] = Hidden(address)
        return addresses

    @property
    def encrypt(self) -> list[str] | None:
        """BACKUP_ENCRYPT (none): what is encrypted: `download` (downloads and files of commands), `local` (backups in
        BACKUP_ROOT), names of BACKUP_LOCATIONS, `all`, or `off`.

        By default copies in locations are encrypted as soon as there is a key.
        """
        value = getattr(settings, "BACKUP_ENCRYPT", None) or ()
        value = value.split(",") if isinstance(value, str) else value
        if not isinstance(value, list | tuple | set | frozenset) or not all(
            isinstance(name, str) for name in value
        ):
            raise WrongSettings.because("BACKUP_ENCRYPT must be a list of places.")
        names = [name.strip().lower() for name in value if name.strip()]
        unknown = {*names} - {*PLACES, "all", OFF}
        if unknown and (unknown := unknown - {*self.locations}):
            raise WrongSettings.because(
                f"BACKUP_ENCRYPT names {', '.join(sorted(unknown))}, which is neither download, local, all, off nor a "
                "name of BACKUP_LOCATIONS."
            )
        return names or None  # which is the default

    def encrypts(self, place: str) -> bool:
        """Tell whether backups for a place, by its name in BACKUP_ENCRYPT, are encrypted. If that is not set, tell
        whether they are as soon as there is a key."""
        names = self.encrypt
        return place not in PLACES if names is None else bool({place, "all"} & {*names})

    @property
    def key(self) -> str:
        """BACKUP_KEY (none): the key to encrypt with, in place of the one in BACKUP_ROOT. It is made by
        `manage.py backup_key --new`.
        """
        value = getattr(settings, "BACKUP_KEY", None) or ""
        if not isinstance(value, str):
            raise WrongSettings.because("BACKUP_KEY must be a key, as text.")
        return Hidden(value.strip())

    @property
    def automatic_seconds(self) -> int:
        """BACKUP_AUTOMATIC_SECONDS (3600): how long an automatic backup may take before it ends itself."""
        return _seconds("BACKUP_AUTOMATIC_SECONDS", AUTOMATIC_SECONDS)


#: The settings of this app: name -> property of `Conf`.
OPTIONS = {
    f"BACKUP_{name.upper()}": name for name, option in vars(Conf).items() if isinstance(option, property)
}


def wrong_settings() -> dict[str, WrongSettings]:
    """Return what is wrong with the settings of this app, by the name of the property of `Conf`; {} if nothing is."""
    wrong = {}
    for name in OPTIONS.values():
        try:
            getattr(conf, name)
        except WrongSettings as error:
            wrong[name] = error
    return wrong


def if_right(name: str, otherwise: T) -> T:
    """Return a setting, by the name of the property of `Conf`; `otherwise` if it is wrong: for what has to work all the
    same. The status says what is wrong."""
    try:
        return cast(T, getattr(conf, name))
    except WrongSettings:
        return otherwise


def keep_rules(value: Any) -> dict[str, int | None]:
    """Return the rules of BACKUP_KEEP: rule -> how many backups; None for all. Raises `WrongSettings`.

    An empty value, or one with a typing error, is refused, so that it does not remove what it was meant to keep.
    """
    rules: dict[str, int | None] = {}
    for rule in str(value).split(","):
        match = re.fullmatch(r"\s*([a-z]+)\s*=\s*(all|[1-9]\d{0,5})\s*", rule, re.ASCII)
        if not isinstance(value, str) or not match or match[1] not in PERIODS or match[1] in rules:
            raise WrongSettings.because(
                "BACKUP_KEEP must be like last=7,weekly=4,monthly=12,yearly=all; "
                f"it may name {', '.join(PERIODS)}, each once, with a number or all."
            )
        rules[match[1]] = None if match[2] == "all" else int(match[2])
    return rules


def _entries(text: str) -> list[str]:
    """Return the entries of a variable, which are separated by commas or line breaks."""
    return [entry.strip() for entry in re.split(r"[,\n]", text) if entry.strip()]


def _named(entry: Any) -> tuple[str, str]:
    name, _equals, address = entry.partition("=") if isinstance(entry, str) else ("", "", "")
    return name.strip(), address.strip()


def _is_cron(text: str) -> bool:
    """Tell whether a text has the five fields of cron, and whether there is a time that matches them."""
    try:
        return len(text.split()) == 5 and bool(next(CronSim(text, aware_now()), None))
    except CronSimError:
        return False


def _url(name: str) -> str:
    value: Any = getattr(settings, name, None) or ""
    try:
        if isinstance(value, str) and (not value or re.match(r"https?://[^/\s]", value)):
            urlsplit(value).port  # noqa: B018  raises `ValueError` if host or port is wrong
            return Hidden(value)
    except ValueError:
        pass
    raise WrongSettings.because(f"{name} must be a correct address that begins with http:// or https://.")


def _number(name: str, default: int, *, least: int) -> int:
    value: Any = getattr(settings, name, default)
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise WrongSettings.because(f"{name} must be a whole number, {least} or more.")
    return value


def _seconds(name: str, default: int) -> int:
    seconds = _number(name, default, least=1)
    if seconds > LONGEST:
        raise WrongSettings.because(f"{name} must be a whole number, {LONGEST} or less.")
    return seconds


def _default_root(base: Path) -> Path:
    """Return the default folder of backups. `base`: the host's folder."""
    if database := _database_file():
        return database.parent / "backups"
    inside = base / "data" / "backups"
    media = _media_folder()
    if media is None or media.is_relative_to(base) or inside.is_dir():
        return inside
    return media.parent / "backups"


def data_places() -> list[Path]:
    """Return the paths of the host's data on this machine, if any. The server's user owns them."""
    return [place for place in (_database_file(), _media_folder()) if place is not None]


def _database_file() -> Path | None:
    """Return the database file of SQLite; None with another database, or if the database is not a file."""
    database = settings.DATABASES.get("default", {})
    name = str(database.get("NAME") or "")
    if not str(database.get("ENGINE", "")).endswith("sqlite3") or not name or name.startswith(("file:", ":")):
        return None
    return Path(os.path.abspath(name))  # resolves "..", without needing the folders before it to exist


def _media_folder() -> Path | None:
    """Return the folder of uploaded files; None if the settings do not name one."""
    media = getattr(settings, "MEDIA_ROOT", "")
    return Path(os.path.abspath(media)) if media else None


conf = Conf()
