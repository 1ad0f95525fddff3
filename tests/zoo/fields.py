from typing import NamedTuple

from django.db import models


class Size(NamedTuple):
    width: int
    height: int


class SizeField(models.CharField):
    """Python sees a Size, the database "3x4"."""

    def to_python(self, value):
        return Size(*map(int, value.split("x"))) if isinstance(value, str) else value

    def from_db_value(self, value, expression, connection):
        return self.to_python(value)

    def get_prep_value(self, value):
        return "x".join(map(str, value)) if isinstance(value, tuple) else value

    def value_to_string(self, obj):
        return self.get_prep_value(self.value_from_object(obj))


class EmptyIsNone(models.CharField):
    """Python sees None instead of "", as many do it where a column may not be NULL."""

    def from_db_value(self, value, expression, connection):
        return value or None

    def get_prep_value(self, value):
        return super().get_prep_value(value) or ""
