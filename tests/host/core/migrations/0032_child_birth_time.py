from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("core", "0031_note_image")]
    operations = [
        migrations.AddField("child", "birth_time", models.TimeField("Birth time", blank=True, null=True)),
    ]
