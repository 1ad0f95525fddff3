import django.core.validators
import django.db.models.functions
import django.utils.timezone
from django.db import migrations, models

import core.models

TAGGED = [
    "bmi",
    "diaperchange",
    "feeding",
    "headcircumference",
    "height",
    "note",
    "pumping",
    "sleep",
    "temperature",
    "tummytime",
    "weight",
]


def key():
    return models.AutoField("ID", auto_created=True, primary_key=True, serialize=False)


class Migration(migrations.Migration):
    dependencies = [("contenttypes", "0002_remove_content_type_name"), ("core", "0001_initial")]
    operations = [
        migrations.CreateModel(
            name="Tag",
            fields=[
                ("id", key()),
                ("name", models.CharField(max_length=100, unique=True, verbose_name="name")),
                ("slug", models.SlugField(max_length=100, unique=True, verbose_name="slug")),
                (
                    "color",
                    models.CharField(
                        "Color",
                        max_length=32,
                        default=core.models.random_color,
                        validators=[django.core.validators.RegexValidator("^#[0-9a-fA-F]{6}$")],
                    ),
                ),
                ("last_used", models.DateTimeField("Last used", default=django.utils.timezone.now)),
            ],
            options={
                "default_permissions": ("view", "add", "change", "delete"),
                "ordering": [django.db.models.functions.Lower("name")],
                "verbose_name": "Tag",
                "verbose_name_plural": "Tags",
            },
        ),
        migrations.CreateModel(
            name="Tagged",
            fields=[
                ("id", key()),
                ("object_id", models.IntegerField(db_index=True, verbose_name="object ID")),
                (
                    "content_type",
                    models.ForeignKey(
                        "contenttypes.contenttype",
                        on_delete=models.CASCADE,
                        related_name="%(app_label)s_%(class)s_tagged_items",
                        verbose_name="content type",
                    ),
                ),
                (
                    "tag",
                    models.ForeignKey(
                        "core.tag",
                        on_delete=models.CASCADE,
                        related_name="%(app_label)s_%(class)s_items",
                        verbose_name="Tag",
                    ),
                ),
            ],
            options={"abstract": False},
        ),
        *(
            migrations.AddField(
                name,
                "tags",
                core.models.TaggableManager(
                    blank=True,
                    help_text="A comma-separated list of tags.",
                    through="core.Tagged",
                    to="core.Tag",
                    verbose_name="Tags",
                ),
            )
            for name in TAGGED
        ),
    ]
