from django.db import migrations

from core.utils import timezone_aware_duration


def recalculate(apps, schema_editor):
    # Without `.using`: the default database.
    for name in ("Feeding", "Pumping", "Sleep", "TummyTime"):
        for row in apps.get_model("core", name).objects.all():
            row.duration = timezone_aware_duration(row.start, row.end)
            row.save()


class Migration(migrations.Migration):
    dependencies = [("core", "0033_heightpercentile_and_more")]
    operations = [migrations.RunPython(recalculate, migrations.RunPython.noop)]
