from django.db import migrations, models

from core.percentiles import PERCENTILES, fill


def fill_table(apps, schema_editor):
    fill(apps.get_model("core", "HeightPercentile").objects.using(schema_editor.connection.alias), "height")


class Migration(migrations.Migration):
    dependencies = [("core", "0032_child_birth_time")]
    operations = [
        migrations.CreateModel(
            name="HeightPercentile",
            fields=[
                ("id", models.AutoField("ID", auto_created=True, primary_key=True, serialize=False)),
                ("age_in_days", models.DurationField()),
                ("sex", models.CharField(choices=[("girl", "Girl"), ("boy", "Boy")], max_length=255)),
                *((f"{percentile}_height", models.FloatField()) for percentile in PERCENTILES),
            ],
        ),
        migrations.AddConstraint(
            "heightpercentile",
            models.UniqueConstraint(fields=("age_in_days", "sex"), name="unique_age_sex_height"),
        ),
        migrations.RunPython(fill_table, migrations.RunPython.noop),
    ]
