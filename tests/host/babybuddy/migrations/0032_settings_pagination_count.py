from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("babybuddy", "0029_create_cache_table")]
    operations = [
        migrations.AddField(
            "settings",
            "pagination_count",
            models.PositiveIntegerField(
                "Items Per Page", choices=[(10, "10"), (25, "25"), (50, "50"), (100, "100")], default=25
            ),
        ),
    ]
