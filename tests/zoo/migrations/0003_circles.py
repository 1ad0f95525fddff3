import django.db.models.deletion
from django.conf import settings
from django.db import migrations, models

CASCADE, SET_NULL = django.db.models.deletion.CASCADE, django.db.models.deletion.SET_NULL


def key():
    return models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")


def one(other):
    return models.OneToOneField(null=True, on_delete=SET_NULL, related_name="+", to=other)


class Migration(migrations.Migration):
    dependencies = [migrations.swappable_dependency(settings.AUTH_USER_MODEL), ("zoo", "0002_keys")]

    operations = [
        migrations.CreateModel(
            name="Badge",
            fields=[
                (
                    "user",
                    models.OneToOneField(
                        on_delete=CASCADE, primary_key=True, serialize=False, to=settings.AUTH_USER_MODEL
                    ),
                ),
                ("text", models.CharField(max_length=50)),
            ],
        ),
        migrations.CreateModel(
            name="Key",
            fields=[("id", key()), ("name", models.CharField(max_length=50, unique=True))],
        ),
        migrations.CreateModel(
            name="Lock",
            fields=[
                ("id", key()),
                ("name", models.CharField(max_length=50, unique=True)),
                ("key", one("zoo.key")),
                ("next", one("zoo.lock")),
            ],
        ),
        migrations.AddField("key", "lock", one("zoo.lock")),
        migrations.CreateModel(
            name="OldLock",
            fields=[],
            options={"proxy": True, "indexes": [], "constraints": []},
            bases=("zoo.lock",),
        ),
        migrations.CreateModel(
            name="Fob",
            fields=[
                ("id", key()),
                ("lock", models.OneToOneField(on_delete=CASCADE, to="zoo.lock")),
                ("text", models.CharField(max_length=50)),
            ],
        ),
        migrations.CreateModel(
            name="Hook",
            fields=[
                ("id", key()),
                ("fob", models.ForeignKey(on_delete=CASCADE, to="zoo.fob", to_field="lock")),
                ("text", models.CharField(max_length=50)),
            ],
        ),
        migrations.CreateModel(name="Link", fields=[("id", key()), ("next", one("zoo.link"))]),
    ]
