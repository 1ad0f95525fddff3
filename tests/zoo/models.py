import os
import uuid

from django.conf import settings
from django.contrib.auth.models import Permission
from django.contrib.contenttypes.fields import GenericForeignKey
from django.contrib.contenttypes.models import ContentType
from django.db import models

from tests.zoo.fields import EmptyIsNone, SizeField


class Specimen(models.Model):
    """A field of every kind; a UUID as key, made by Python."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4)
    small = models.SmallIntegerField(default=0)
    integer = models.IntegerField(default=0)
    big = models.BigIntegerField(default=0)
    positive_small = models.PositiveSmallIntegerField(default=0)
    positive = models.PositiveIntegerField(default=0)
    positive_big = models.PositiveBigIntegerField(default=0)
    float = models.FloatField(null=True)
    decimal = models.DecimalField(max_digits=20, decimal_places=6, null=True)
    flag = models.BooleanField(null=True)
    char = models.CharField(max_length=100, null=True)
    text = models.TextField(null=True)
    url = models.URLField(default="")
    email = models.EmailField(default="")
    slug = models.SlugField(default="")
    address = models.GenericIPAddressField(null=True)
    other_uuid = models.UUIDField(null=True)
    file = models.FileField(upload_to="zoo/", null=True)
    binary = models.BinaryField(null=True)
    json = models.JSONField(null=True)
    json_required = models.JSONField(default=dict)
    date = models.DateField(null=True)
    time = models.TimeField(null=True)
    datetime = models.DateTimeField(null=True)
    duration = models.DurationField(null=True)
    size = SizeField(max_length=20, null=True)
    created = models.DateTimeField(auto_now_add=True)
    changed = models.DateTimeField(auto_now=True)


class Species(models.Model):
    """A tree; text as key, a second unique name, and a natural key that is not the key."""

    code = models.CharField(max_length=50, primary_key=True)
    latin = models.CharField(max_length=100, unique=True)
    parent = models.ForeignKey("self", models.CASCADE, null=True, related_name="children")

    def natural_key(self):
        return (self.latin,)


class Sighting(models.Model):
    """Refers to a column that is not the key."""

    species = models.ForeignKey(Species, models.CASCADE, to_field="latin")


class Present(models.Manager):
    def get_queryset(self):
        return super().get_queryset().filter(gone=False)


class Animal(models.Model):
    """A default manager that hides rows; friends of its own kind."""

    name = models.CharField(max_length=100)
    gone = models.BooleanField(default=False)
    friends = models.ManyToManyField("self")

    objects = Present()


class Bird(Animal):
    wingspan = models.FloatField()


class Parrot(Bird):
    says = models.TextField(default="")


class TameAnimal(Animal):
    class Meta:
        proxy = True


class Egg(models.Model):
    bird = models.ForeignKey(Bird, models.CASCADE)


class Passport(models.Model):
    animal = models.OneToOneField(Animal, models.CASCADE, primary_key=True)
    number = models.CharField(max_length=20, unique=True)


class Enclosure(models.Model):
    """With Keeper: a circle."""

    name = models.CharField(max_length=100)
    closed = models.BooleanField(default=False)
    head = models.ForeignKey("Keeper", models.CASCADE, null=True, related_name="heads")

    class Meta:
        constraints = [
            # MySQL ignores it, as it has no conditional indexes.
            models.UniqueConstraint(fields=["name"], condition=models.Q(closed=False), name="zoo_open_name")
        ]


class Keeper(models.Model):
    name = models.CharField(max_length=100)
    enclosure = models.ForeignKey(Enclosure, models.CASCADE)
    animals = models.ManyToManyField(Animal)
    trained_for = models.ManyToManyField(Species, through="Training")


class Training(models.Model):
    keeper = models.ForeignKey(Keeper, models.CASCADE)
    species = models.ForeignKey(Species, models.CASCADE)
    grade = models.PositiveSmallIntegerField()

    class Meta:
        unique_together = [("keeper", "species")]


class Sign(models.Model):
    """Hangs on a row of any model."""

    content_type = models.ForeignKey(ContentType, models.CASCADE)
    object_id = models.CharField(max_length=64)
    target = GenericForeignKey()
    text = models.CharField(max_length=100)


class Rule(models.Model):
    permission = models.ForeignKey(Permission, models.CASCADE)
    subjects = models.ManyToManyField(ContentType)


class Reserved(models.Model):
    """Names that SQL wants quoted."""

    key = models.AutoField(primary_key=True, db_column="group")
    order = models.IntegerField(db_column="order")

    class Meta:
        db_table = "zoo select"


class Tide(models.Model):
    """A moment as key, which no database and no driver says as a file does."""

    at = models.DateTimeField(primary_key=True)
    height = models.FloatField()
    species = models.ManyToManyField(Species)


class Day(models.Model):
    """A date as key, of a relation as well."""

    date = models.DateField(primary_key=True)
    species = models.ManyToManyField(Species)


class Bell(models.Model):
    """A time of day as key, of a relation as well."""

    time = models.TimeField(primary_key=True)
    days = models.ManyToManyField(Day)


class Lap(models.Model):
    """A duration as key; its relation leads to moments."""

    duration = models.DurationField(primary_key=True)
    tides = models.ManyToManyField(Tide)


class Coin(models.Model):
    """A decimal number as key; its relations lead to durations and to others of its kind."""

    worth = models.DecimalField(max_digits=8, decimal_places=2, primary_key=True)
    laps = models.ManyToManyField(Lap)
    change = models.ManyToManyField("self", symmetrical=False)


class Camera(models.Model):
    """An address as key, which PostgreSQL sorts by its numbers, the others as a text."""

    address = models.GenericIPAddressField(primary_key=True)


class Shelf(models.Model):
    """A number as key that people give, not the database."""

    number = models.PositiveBigIntegerField(primary_key=True)
    label = models.CharField(max_length=50)

    class Meta:
        required_db_vendor = os.environ.get("BACKUP_TEST_SHELF_VENDOR")  # of child processes


class Sample(models.Model):
    """A field of each kind that an engine has its own fast way to write, and of no other."""

    char = models.CharField(max_length=50, null=True)
    text = models.TextField(null=True)
    integer = models.IntegerField(null=True)
    big = models.BigIntegerField(null=True)
    float = models.FloatField(null=True)
    flag = models.BooleanField(null=True)
    date = models.DateField(null=True)
    time = models.TimeField(null=True)
    datetime = models.DateTimeField(null=True)
    duration = models.DurationField(null=True)
    species = models.ForeignKey(Species, models.CASCADE, null=True, db_constraint=False)


class Badge(models.Model):
    """Its key is a user's."""

    user = models.OneToOneField(settings.AUTH_USER_MODEL, models.CASCADE, primary_key=True)
    text = models.CharField(max_length=50)


class Lock(models.Model):
    """Alone and with Key, circles of unique keys."""

    name = models.CharField(max_length=50, unique=True)
    key = models.OneToOneField("Key", models.SET_NULL, null=True, related_name="+")
    next = models.OneToOneField("self", models.SET_NULL, null=True, related_name="+")


class Key(models.Model):
    name = models.CharField(max_length=50, unique=True)
    lock = models.OneToOneField(Lock, models.SET_NULL, null=True, related_name="+")


class OldLock(Lock):
    class Meta:
        proxy = True


class Fob(models.Model):
    lock = models.OneToOneField(Lock, models.CASCADE)
    text = models.CharField(max_length=50)


class Hook(models.Model):
    """Refers to a column that is itself a reference."""

    fob = models.ForeignKey(Fob, models.CASCADE, to_field="lock")
    text = models.CharField(max_length=50)


class Cot(models.Model):
    """Refers to children: its own by the slug, others only as long as they are there."""

    child = models.ForeignKey("core.Child", models.CASCADE, to_field="slug", related_name="+")
    guest = models.ForeignKey("core.Child", models.SET_NULL, to_field="slug", null=True, related_name="+")
    heir = models.ForeignKey("core.Child", models.SET_NULL, null=True, related_name="+")
    text = models.CharField(max_length=50)


class Blanket(models.Model):
    cot = models.ForeignKey(Cot, models.CASCADE)


class Link(models.Model):
    """Only the next one says which one it is."""

    next = models.OneToOneField("self", models.SET_NULL, null=True, related_name="+")


class Kind(models.Model):
    """The key is that of a content type, which each database numbers by itself."""

    type = models.OneToOneField(ContentType, models.CASCADE, primary_key=True, related_name="+")
    text = models.CharField(max_length=50)
    like = models.ManyToManyField("self", symmetrical=False)


class KindNote(models.Model):
    """The same, at the end of a chain."""

    kind = models.OneToOneField(Kind, models.CASCADE, primary_key=True)
    about = models.ForeignKey(Kind, models.CASCADE, related_name="+")
    text = models.CharField(max_length=50)


class Privilege(Permission):
    """Inherits from a model that is in no backup."""

    price = models.IntegerField()


class Plate(models.Model):
    """A stored "" that Python does not see."""

    serial = EmptyIsNone(max_length=20, unique=True)
    text = EmptyIsNone(max_length=20, null=True)


class Ghost(models.Model):
    """Not ours to manage: there is no such table."""

    class Meta:
        managed = False
