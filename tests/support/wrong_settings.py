"""Settings as people get them wrong."""

#: A wrong value of each setting: BACKUP_…
WRONG = {
    "MAX_UPLOAD_SIZE": "200 MB",
    "MAX_UNCOMPRESSED_SIZE": 0,
    "PHOTOS": "ja",
    "MAX_PHOTOS": 0,
    "ROOT": 7,
    "EXCLUDE": "core.note",
    "REQUIRE_SUPERUSER": "ja",
    "SAFETY_COPIES": 0,
    "STAGED_SECONDS": "1h",
    "UPGRADE_SECONDS": 0,
    "SCHEDULE": "dayly",
    "KEEP": "last=0",
    "NOTIFY": "somebody",
    "PING_URL": "example.com",
    "WEBHOOK_URL": "example.com",
    "PROVE": "yes",
    "LOCATIONS": "nas",
    "ENCRYPT": "cloud",
    "KEY": 7,
    "AUTOMATIC_SECONDS": "1h",
}
