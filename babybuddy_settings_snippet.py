# --- babybuddy-backup: begin ------------------------------------------------------------------------------
# Backup & Restore for Baby Buddy. `python -m backup.install PATH_TO_SETTINGS` appends these lines to the settings
# module that your Baby Buddy runs with; remove them, and Baby Buddy is as it was. They may stand in a settings module
# and in the one that it imports from. Without the package, Baby Buddy starts all the same.
try:
    from backup.plug_in import plug_in
except ImportError as error:
    __import__("logging").getLogger("backup").error("Backup & Restore is not available: %s", error)
else:
    plug_in(globals())
    del plug_in
# --- babybuddy-backup: end --------------------------------------------------------------------------------
