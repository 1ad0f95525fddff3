from django.db import migrations


def delete_stopped_timers(apps, schema_editor):
    # The model of today, on the default database, whichever is being migrated.
    from core.models import Timer

    Timer.objects.filter(active=False).delete()


class Migration(migrations.Migration):
    dependencies = [("core", "0026_alter_feeding_end_alter_feeding_start_and_more")]
    operations = [
        migrations.AlterModelOptions(
            "timer",
            {
                "default_permissions": ("view", "add", "change", "delete"),
                "ordering": ["-start"],
                "verbose_name": "Timer",
                "verbose_name_plural": "Timers",
            },
        ),
        migrations.RemoveField("timer", "duration"),
        migrations.RemoveField("timer", "end"),
        migrations.RunPython(delete_stopped_timers, migrations.RunPython.noop),
    ]
