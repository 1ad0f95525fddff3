from django.db import migrations, models

from core.percentiles import PERCENTILES, fill


def fill_table(apps, schema_editor):
    fill(apps.get_model("core", "WeightPercentile").objects.using(schema_editor.connection.alias), "weight")


class Migration(migrations.Migration):
    dependencies = [("core", "0029_alter_pumping_options_remove_pumping_time_and_more")]
    operations = [
        migrations.CreateModel(
            name="WeightPercentile",
            fields=[
                ("id", models.AutoField("ID", auto_created=True, primary_key=True, serialize=False)),
                ("age_in_days", models.DurationField()),
                ("sex", models.CharField(choices=[("girl", "Girl"), ("boy", "Boy")], max_length=255)),
                *((f"{percentile}_weight", models.FloatField()) for percentile in PERCENTILES),
            ],
        ),
        migrations.AddConstraint(
            "weightpercentile",
            models.UniqueConstraint(fields=("age_in_days", "sex"), name="unique_age_sex"),
        ),
        migrations.RunPython(fill_table, migrations.RunPython.noop),
    ]
