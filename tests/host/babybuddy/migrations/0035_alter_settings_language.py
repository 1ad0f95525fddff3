from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("babybuddy", "0032_settings_pagination_count")]
    operations = [
        migrations.AlterField(
            "settings",
            "pagination_count",
            models.PositiveIntegerField(
                "Items Per Page",
                choices=[(10, "10"), (25, "25"), (50, "50"), (100, "100"), (250, "250"), (0, "Show All")],
                default=25,
            ),
        ),
    ]
