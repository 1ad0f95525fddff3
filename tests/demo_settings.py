"""The stand-in for looking at, with this project plugged in by its snippet."""

from pathlib import Path

from babybuddy.settings.development import *  # noqa: F403

snippet = Path(__file__).resolve().parents[1] / "babybuddy_settings_snippet.py"
exec(compile(snippet.read_text(encoding="utf-8"), str(snippet), "exec"))
