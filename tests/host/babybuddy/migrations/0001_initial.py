"""Settings as of Baby Buddy 1.12, in one step. Later migrations have the names that they have there."""

from datetime import timedelta

from django.conf import settings
from django.db import migrations, models


class Migration(migrations.Migration):
    initial = True
    dependencies = [migrations.swappable_dependency(settings.AUTH_USER_MODEL)]
    operations = [
        migrations.CreateModel(
            name="Settings",
            fields=[
                ("id", models.AutoField("ID", auto_created=True, primary_key=True, serialize=False)),
                (
                    "dashboard_refresh_rate",
                    models.DurationField("Refresh rate", blank=True, null=True, default=timedelta(minutes=1)),
                ),
                ("dashboard_hide_empty", models.BooleanField("Hide Empty Dashboard Cards", default=False)),
                (
                    "dashboard_hide_age",
                    models.DurationField("Hide data older than", blank=True, null=True, default=None),
                ),
                ("language", models.CharField("Language", max_length=255, default="en")),
                ("timezone", models.CharField("Timezone", max_length=100, default="UTC")),
                ("user", models.OneToOneField(settings.AUTH_USER_MODEL, on_delete=models.CASCADE)),
            ],
        ),
    ]
