from django.db import migrations


def en_to_en_us(apps, schema_editor):
    # Without `.using`: runs on the default database, whichever is being migrated.
    apps.get_model("babybuddy", "Settings").objects.filter(language="en").update(language="en-US")


class Migration(migrations.Migration):
    dependencies = [("babybuddy", "0001_initial")]
    operations = [migrations.RunPython(en_to_en_us, migrations.RunPython.noop)]
