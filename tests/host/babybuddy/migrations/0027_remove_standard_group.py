from django.contrib.auth.models import Group
from django.db import migrations


def remove_standard_group(apps, schema_editor):
    # The model of today, on the default database.
    Group.objects.filter(name="standard").delete()


class Migration(migrations.Migration):
    dependencies = [
        ("babybuddy", "0020_update_language_en_to_en_us"),
        # Deleting looks for all that refers to a group.
        ("auth", "0012_alter_user_first_name_max_length"),
    ]
    operations = [migrations.RunPython(remove_standard_group, migrations.RunPython.noop)]
