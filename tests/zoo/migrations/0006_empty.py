from django.db import migrations, models

from tests.zoo.fields import EmptyIsNone


class Migration(migrations.Migration):
    dependencies = [("zoo", "0005_by_slug")]

    operations = [
        migrations.CreateModel(
            "Plate",
            [
                ("id", models.BigAutoField(primary_key=True)),
                ("serial", EmptyIsNone(max_length=20, unique=True)),
                ("text", EmptyIsNone(max_length=20, null=True)),
            ],
        )
    ]
