from django.db import migrations, models


def work_out_naps(apps, schema_editor):
    # The model of today, for the sake of its `save`, on the default database.
    from core.models import Sleep

    for sleep in Sleep.objects.all():
        sleep.nap = None
        sleep.save()


class Migration(migrations.Migration):
    dependencies = [
        ("core", "0027_alter_timer_options_remove_timer_duration_and_more"),
        ("dbsettings", "0001_initial"),
    ]
    operations = [
        migrations.RemoveField("sleep", "napping"),
        migrations.AddField("sleep", "nap", models.BooleanField("Nap", null=True)),
        migrations.RunPython(work_out_naps, migrations.RunPython.noop),
        migrations.AlterField("sleep", "nap", models.BooleanField("Nap", blank=True)),
        *(
            migrations.AlterModelOptions(
                name.lower(),
                {
                    "default_permissions": ("view", "add", "change", "delete"),
                    "ordering": ["-start"],
                    "permissions": [(f"can_edit_{name.lower()}_settings", f"Can edit {name} settings")],
                    "verbose_name": name,
                    "verbose_name_plural": plural,
                },
            )
            for name, plural in (("Feeding", "Feedings"), ("Sleep", "Sleep"))
        ),
    ]
