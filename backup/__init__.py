"""Backup and restore for Baby Buddy. `services` is the API; docs/architecture.md says where the rest is."""

__version__ = "0.1.0"
