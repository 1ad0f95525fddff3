from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("babybuddy", "0027_remove_standard_group")]
    operations = [
        migrations.AlterField(
            "settings", "language", models.CharField("Language", max_length=255, default="en-US")
        ),
    ]
