import django.utils.timezone
from django.db import migrations, models


def start_and_end_at_time(apps, schema_editor):
    # Without `.using`: the default database. The duration stays unknown.
    apps.get_model("core", "Pumping").objects.update(start=models.F("time"), end=models.F("time"))


class Migration(migrations.Migration):
    dependencies = [("core", "0028_alter_sleep_options_remove_sleep_napping_sleep_nap")]
    operations = [
        migrations.AlterModelOptions(
            "pumping",
            {
                "default_permissions": ("view", "add", "change", "delete"),
                "ordering": ["-start"],
                "verbose_name": "Pumping",
                "verbose_name_plural": "Pumping",
            },
        ),
        *(
            migrations.AddField(
                "pumping", name, models.DateTimeField(label, default=django.utils.timezone.localtime)
            )
            for name, label in (("start", "Start time"), ("end", "End time"))
        ),
        migrations.AddField(
            "pumping", "duration", models.DurationField("Duration", editable=False, null=True)
        ),
        migrations.RunPython(start_and_end_at_time, migrations.RunPython.noop),
        migrations.RemoveField("pumping", "time"),
    ]
