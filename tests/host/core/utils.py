import random
from datetime import timezone

COLORS = ["#ff0000", "#00ff00", "#0000ff", "#ff00ff", "#ffff00", "#00ffff", "#7f0000", "#007f00", "#00007f"]


def random_color():
    return random.choice(COLORS)


def in_reading_order(meta):
    """The fields that people fill in: whose it is first, remarks last."""
    fields = [field for field in (*meta.fields, *meta.many_to_many) if field.editable]
    hidden = ("id", "user", "last_used")
    last = ("notes", "tags")
    fields = [field for field in fields if field.name not in hidden]
    return sorted(fields, key=lambda field: (field.name != "child", field.name in last))


def timezone_aware_duration(start, end):
    """The time that really passed, clock changes accounted for."""
    return end.astimezone(timezone.utc) - start.astimezone(timezone.utc)
