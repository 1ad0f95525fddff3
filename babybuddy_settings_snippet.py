# --- babybuddy-backup: begin ------------------------------------------------------------------------------
# Backup & Restore for Baby Buddy. Append this text to the end of the settings module that your Baby Buddy
# runs with (`python -m backup.install PATH_TO_SETTINGS` does just that), and restart it. That is the whole
# installation; take the text out again, and Baby Buddy is as it was.
# It may stand in a settings module and in the one that it imports from: the second time changes nothing.


def _plug_in_backup(settings):
    import os
    from pathlib import Path

    import environ

    import backup

    # The app: its pages, its commands `backup`, `restore` and `verify_backup`. It has no tables.
    apps = list(settings["INSTALLED_APPS"])
    if not {"backup", "backup.apps.BackupConfig"} & set(apps):
        settings["INSTALLED_APPS"] = [*apps, "backup"]

    # Its URLs under /backup/: `backup.root_urls` sets them before Baby Buddy's, and keeps all of those.
    if settings["ROOT_URLCONF"] != "backup.root_urls":
        settings["BACKUP_HOST_URLCONF"] = settings["ROOT_URLCONF"]
        settings["ROOT_URLCONF"] = "backup.root_urls"

    # The entry in the user menu: a template that extends Baby Buddy's own of the same name, so it must be
    # found first.
    folder = str(Path(backup.__file__).parent / "overrides")
    first, *others = settings["TEMPLATES"]
    folders = [name for name in first.get("DIRS", []) if str(name) != folder]
    settings["TEMPLATES"] = [{**first, "DIRS": [folder, *folders]}, *others]

    # Options, each explained in backup/conf.py, may come from the environment. What is no number where one is
    # due, or neither yes nor no, is kept as it is: `manage.py check` then names it.
    env = environ.Env()
    options = {
        "BACKUP_ROOT": env.str,
        "BACKUP_EXCLUDE": env.list,
        "BACKUP_REQUIRE_SUPERUSER": env.bool,
        "BACKUP_MAX_UPLOAD_SIZE": env.int,
        "BACKUP_MAX_UNCOMPRESSED_SIZE": env.int,
        "BACKUP_SAFETY_COPIES": env.int,
        "BACKUP_STAGED_SECONDS": env.int,
        "BACKUP_UPGRADE_SECONDS": env.int,
    }
    no = ("false", "off", "n", "no", "0")
    for name, read in options.items():
        text = os.environ.get(name, "").strip()
        if not text:
            continue
        try:
            value = read(name)
        except ValueError:
            value = text
        settings[name] = text if value is False and text.lower() not in no else value


_plug_in_backup(globals())
del _plug_in_backup
# --- babybuddy-backup: end --------------------------------------------------------------------------------
