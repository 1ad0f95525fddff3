"""The models as of Baby Buddy 1.12, in one step. Later migrations have the names that they have there."""

from django.conf import settings
from django.db import migrations, models


def model(name, *fields, ordering, verbose_name, verbose_name_plural=None):
    key = models.AutoField("ID", auto_created=True, primary_key=True, serialize=False)
    return migrations.CreateModel(
        name=name,
        fields=[("id", key), *fields],
        options={
            "default_permissions": ("view", "add", "change", "delete"),
            "ordering": ordering,
            "verbose_name": verbose_name,
            "verbose_name_plural": verbose_name_plural or verbose_name,
        },
    )


def child(related_name, **options):
    field = models.ForeignKey(
        "core.child", on_delete=models.CASCADE, related_name=related_name, verbose_name="Child", **options
    )
    return ("child", field)


def notes():
    return ("notes", models.TextField("Notes", blank=True, null=True))


def period():
    return (
        ("start", models.DateTimeField("Start time")),
        ("end", models.DateTimeField("End time")),
        ("duration", models.DurationField("Duration", editable=False, null=True)),
    )


def measurement(name, column, related_name, verbose_name):
    return model(
        name,
        ("date", models.DateField("Date")),
        notes(),
        (column, models.FloatField(verbose_name)),
        child(related_name),
        ordering=["-date"],
        verbose_name=verbose_name,
    )


class Migration(migrations.Migration):
    initial = True
    dependencies = [migrations.swappable_dependency(settings.AUTH_USER_MODEL)]
    operations = [
        model(
            "Child",
            ("first_name", models.CharField("First name", max_length=255)),
            ("last_name", models.CharField("Last name", blank=True, max_length=255)),
            ("birth_date", models.DateField("Birth date")),
            (
                "slug",
                models.SlugField("Slug", allow_unicode=True, editable=False, max_length=100, unique=True),
            ),
            ("picture", models.ImageField("Picture", blank=True, null=True, upload_to="child/picture/")),
            ordering=["last_name", "first_name"],
            verbose_name="Child",
            verbose_name_plural="Children",
        ),
        model(
            "DiaperChange",
            notes(),
            ("time", models.DateTimeField("Time")),
            child("diaper_change"),
            ("wet", models.BooleanField("Wet")),
            ("solid", models.BooleanField("Solid")),
            (
                "color",
                models.CharField(
                    "Color",
                    blank=True,
                    choices=[
                        ("black", "Black"),
                        ("brown", "Brown"),
                        ("green", "Green"),
                        ("yellow", "Yellow"),
                    ],
                    max_length=255,
                ),
            ),
            ("amount", models.FloatField("Amount", blank=True, null=True)),
            ordering=["-time"],
            verbose_name="Diaper Change",
            verbose_name_plural="Diaper Changes",
        ),
        model(
            "Feeding",
            notes(),
            *period(),
            child("feeding"),
            (
                "type",
                models.CharField(
                    "Type",
                    choices=[
                        ("breast milk", "Breast milk"),
                        ("formula", "Formula"),
                        ("fortified breast milk", "Fortified breast milk"),
                        ("solid food", "Solid food"),
                    ],
                    max_length=255,
                ),
            ),
            (
                "method",
                models.CharField(
                    "Method",
                    choices=[
                        ("bottle", "Bottle"),
                        ("left breast", "Left breast"),
                        ("right breast", "Right breast"),
                        ("both breasts", "Both breasts"),
                        ("parent fed", "Parent fed"),
                        ("self fed", "Self fed"),
                    ],
                    max_length=255,
                ),
            ),
            ("amount", models.FloatField("Amount", blank=True, null=True)),
            ordering=["-start"],
            verbose_name="Feeding",
            verbose_name_plural="Feedings",
        ),
        model(
            "Note",
            ("time", models.DateTimeField("Time")),
            child("note"),
            ("note", models.TextField("Note")),
            ordering=["-time"],
            verbose_name="Note",
            verbose_name_plural="Notes",
        ),
        model(
            "Pumping",
            notes(),
            ("time", models.DateTimeField("Time")),
            child("pumping"),
            ("amount", models.FloatField("Amount")),
            ordering=["-time"],
            verbose_name="Pumping",
        ),
        model(
            "Sleep",
            notes(),
            *period(),
            child("sleep"),
            ("napping", models.BooleanField("Napping", editable=False, null=True)),
            ordering=["-start"],
            verbose_name="Sleep",
        ),
        model(
            "Temperature",
            notes(),
            ("time", models.DateTimeField("Time")),
            child("temperature"),
            ("temperature", models.FloatField("Temperature")),
            ordering=["-time"],
            verbose_name="Temperature",
        ),
        model(
            "Timer",
            child("timers", blank=True, null=True),
            ("name", models.CharField("Name", blank=True, max_length=255, null=True)),
            ("start", models.DateTimeField("Start time")),
            ("end", models.DateTimeField("End time", blank=True, editable=False, null=True)),
            ("duration", models.DurationField("Duration", editable=False, null=True)),
            ("active", models.BooleanField("Active", default=True, editable=False)),
            (
                "user",
                models.ForeignKey(
                    settings.AUTH_USER_MODEL,
                    on_delete=models.CASCADE,
                    related_name="timers",
                    verbose_name="User",
                ),
            ),
            ordering=["-active", "-start", "-end"],
            verbose_name="Timer",
            verbose_name_plural="Timers",
        ),
        model(
            "TummyTime",
            *period(),
            child("tummy_time"),
            ("milestone", models.CharField("Milestone", blank=True, max_length=255)),
            ordering=["-start"],
            verbose_name="Tummy Time",
        ),
        measurement("BMI", "bmi", "bmi", "BMI"),
        measurement("HeadCircumference", "head_circumference", "head_circumference", "Head Circumference"),
        measurement("Height", "height", "height", "Height"),
        measurement("Weight", "weight", "weight", "Weight"),
    ]
