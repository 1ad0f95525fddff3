from django.db import migrations, models
from django.db.models.deletion import CASCADE, SET_NULL


def child(on_delete, **options):
    return models.ForeignKey(on_delete=on_delete, related_name="+", to="core.child", **options)


def key():
    return models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")


class Migration(migrations.Migration):
    dependencies = [("core", "0001_initial"), ("zoo", "0004_natural")]

    operations = [
        migrations.CreateModel(
            name="Cot",
            fields=[
                ("id", key()),
                ("child", child(CASCADE, to_field="slug")),
                ("guest", child(SET_NULL, to_field="slug", null=True)),
                ("heir", child(SET_NULL, null=True)),
                ("text", models.CharField(max_length=50)),
            ],
        ),
        migrations.CreateModel(
            name="Blanket",
            fields=[("id", key()), ("cot", models.ForeignKey(on_delete=CASCADE, to="zoo.cot"))],
        ),
    ]
