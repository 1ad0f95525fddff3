import django.utils.timezone
from django.db import migrations, models

import core.models


class Migration(migrations.Migration):
    dependencies = [("core", "0035_recalculate_durations")]
    operations = [
        migrations.CreateModel(
            name="Medication",
            fields=[
                ("id", models.AutoField("ID", auto_created=True, primary_key=True, serialize=False)),
                ("notes", models.TextField("Notes", blank=True, null=True)),
                ("name", models.CharField("Medication Name", max_length=255, db_index=True)),
                ("dosage", models.FloatField("Dosage", blank=True, null=True)),
                (
                    "dosage_unit",
                    models.CharField(
                        "Dosage Unit",
                        max_length=20,
                        choices=[("mg", "MG"), ("ml", "ML"), ("tablets", "Tablets"), ("drops", "Drops")],
                        blank=True,
                        default="",
                    ),
                ),
                (
                    "time",
                    models.DateTimeField(
                        "Time Taken", default=django.utils.timezone.localtime, db_index=True
                    ),
                ),
                (
                    "next_dose_interval",
                    models.DurationField("Next Dose Interval", blank=True, null=True),
                ),
                (
                    "child",
                    models.ForeignKey(
                        "core.child",
                        on_delete=models.CASCADE,
                        related_name="medication",
                        verbose_name="Child",
                    ),
                ),
                (
                    "tags",
                    core.models.TaggableManager(
                        blank=True,
                        help_text="A comma-separated list of tags.",
                        through="core.Tagged",
                        to="core.Tag",
                        verbose_name="Tags",
                    ),
                ),
            ],
            options={
                "default_permissions": ("view", "add", "change", "delete"),
                "ordering": ["-time"],
                "verbose_name": "Medication",
                "verbose_name_plural": "Medications",
            },
        ),
    ]
