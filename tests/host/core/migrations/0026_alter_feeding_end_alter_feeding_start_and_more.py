"""The last migration of Baby Buddy 1.16: a backup of that release names it."""

import django.utils.timezone
from django.db import migrations, models


def default_now(model, field, verbose_name):
    return migrations.AlterField(
        model, field, models.DateTimeField(verbose_name, default=django.utils.timezone.localtime)
    )


class Migration(migrations.Migration):
    dependencies = [("core", "0024_alter_tag_slug")]
    operations = [
        *(default_now(name, "start", "Start time") for name in ("feeding", "sleep", "tummytime")),
        *(default_now(name, "end", "End time") for name in ("feeding", "sleep", "tummytime")),
        *(default_now(name, "time", "Time") for name in ("diaperchange", "note", "pumping", "temperature")),
        migrations.AlterField(
            "timer", "start", models.DateTimeField("Start time", default=django.utils.timezone.now)
        ),
        *(
            migrations.AlterField(
                name, "date", models.DateField("Date", default=django.utils.timezone.localdate)
            )
            for name in ("bmi", "headcircumference", "height", "weight")
        ),
        *(
            migrations.AlterModelOptions(
                name,
                {
                    "default_permissions": ("view", "add", "change", "delete"),
                    "ordering": ["-date", "-id"],
                    "verbose_name": verbose_name,
                    "verbose_name_plural": verbose_name,
                },
            )
            for name, verbose_name in (
                ("bmi", "BMI"),
                ("headcircumference", "Head Circumference"),
                ("height", "Height"),
                ("weight", "Weight"),
            )
        ),
    ]
