import uuid

import django.db.models.deletion
from django.db import migrations, models

import tests.zoo.fields


class Migration(migrations.Migration):
    initial = True

    dependencies = [
        ("auth", "0012_alter_user_first_name_max_length"),
        ("contenttypes", "0002_remove_content_type_name"),
    ]

    operations = [
        migrations.CreateModel(
            name="Ghost",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
            ],
            options={
                "managed": False,
            },
        ),
        migrations.CreateModel(
            name="Animal",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("name", models.CharField(max_length=100)),
                ("gone", models.BooleanField(default=False)),
                ("friends", models.ManyToManyField(to="zoo.animal")),
            ],
        ),
        migrations.CreateModel(
            name="Enclosure",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("name", models.CharField(max_length=100)),
                ("closed", models.BooleanField(default=False)),
            ],
        ),
        migrations.CreateModel(
            name="Reserved",
            fields=[
                ("key", models.AutoField(db_column="group", primary_key=True, serialize=False)),
                ("order", models.IntegerField(db_column="order")),
            ],
            options={
                "db_table": "zoo select",
            },
        ),
        migrations.CreateModel(
            name="Specimen",
            fields=[
                ("id", models.UUIDField(default=uuid.uuid4, primary_key=True, serialize=False)),
                ("small", models.SmallIntegerField(default=0)),
                ("integer", models.IntegerField(default=0)),
                ("big", models.BigIntegerField(default=0)),
                ("positive_small", models.PositiveSmallIntegerField(default=0)),
                ("positive", models.PositiveIntegerField(default=0)),
                ("positive_big", models.PositiveBigIntegerField(default=0)),
                ("float", models.FloatField(null=True)),
                ("decimal", models.DecimalField(decimal_places=6, max_digits=20, null=True)),
                ("flag", models.BooleanField(null=True)),
                ("char", models.CharField(max_length=100, null=True)),
                ("text", models.TextField(null=True)),
                ("url", models.URLField(default="")),
                ("email", models.EmailField(default="", max_length=254)),
                ("slug", models.SlugField(default="")),
                ("address", models.GenericIPAddressField(null=True)),
                ("other_uuid", models.UUIDField(null=True)),
                ("file", models.FileField(null=True, upload_to="zoo/")),
                ("binary", models.BinaryField(null=True)),
                ("json", models.JSONField(null=True)),
                ("json_required", models.JSONField(default=dict)),
                ("date", models.DateField(null=True)),
                ("time", models.TimeField(null=True)),
                ("datetime", models.DateTimeField(null=True)),
                ("duration", models.DurationField(null=True)),
                ("size", tests.zoo.fields.SizeField(max_length=20, null=True)),
                ("created", models.DateTimeField(auto_now_add=True)),
                ("changed", models.DateTimeField(auto_now=True)),
            ],
        ),
        migrations.CreateModel(
            name="Bird",
            fields=[
                (
                    "animal_ptr",
                    models.OneToOneField(
                        auto_created=True,
                        on_delete=django.db.models.deletion.CASCADE,
                        parent_link=True,
                        primary_key=True,
                        serialize=False,
                        to="zoo.animal",
                    ),
                ),
                ("wingspan", models.FloatField()),
            ],
            bases=("zoo.animal",),
        ),
        migrations.CreateModel(
            name="Passport",
            fields=[
                (
                    "animal",
                    models.OneToOneField(
                        on_delete=django.db.models.deletion.CASCADE,
                        primary_key=True,
                        serialize=False,
                        to="zoo.animal",
                    ),
                ),
                ("number", models.CharField(max_length=20, unique=True)),
            ],
        ),
        migrations.CreateModel(
            name="TameAnimal",
            fields=[],
            options={
                "proxy": True,
                "indexes": [],
                "constraints": [],
            },
            bases=("zoo.animal",),
        ),
        migrations.CreateModel(
            name="Keeper",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("name", models.CharField(max_length=100)),
                ("animals", models.ManyToManyField(to="zoo.animal")),
                (
                    "enclosure",
                    models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, to="zoo.enclosure"),
                ),
            ],
        ),
        migrations.AddField(
            model_name="enclosure",
            name="head",
            field=models.ForeignKey(
                null=True, on_delete=django.db.models.deletion.CASCADE, related_name="heads", to="zoo.keeper"
            ),
        ),
        migrations.CreateModel(
            name="Rule",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                (
                    "permission",
                    models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, to="auth.permission"),
                ),
                ("subjects", models.ManyToManyField(to="contenttypes.contenttype")),
            ],
        ),
        migrations.CreateModel(
            name="Sign",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("object_id", models.CharField(max_length=64)),
                ("text", models.CharField(max_length=100)),
                (
                    "content_type",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE, to="contenttypes.contenttype"
                    ),
                ),
            ],
        ),
        migrations.CreateModel(
            name="Species",
            fields=[
                ("code", models.CharField(max_length=50, primary_key=True, serialize=False)),
                ("latin", models.CharField(max_length=100, unique=True)),
                (
                    "parent",
                    models.ForeignKey(
                        null=True,
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="children",
                        to="zoo.species",
                    ),
                ),
            ],
        ),
        migrations.CreateModel(
            name="Sighting",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                (
                    "species",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE, to="zoo.species", to_field="latin"
                    ),
                ),
            ],
        ),
        migrations.CreateModel(
            name="Training",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("grade", models.PositiveSmallIntegerField()),
                ("keeper", models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, to="zoo.keeper")),
                ("species", models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, to="zoo.species")),
            ],
        ),
        migrations.AddField(
            model_name="keeper",
            name="trained_for",
            field=models.ManyToManyField(through="zoo.Training", to="zoo.species"),
        ),
        migrations.CreateModel(
            name="Parrot",
            fields=[
                (
                    "bird_ptr",
                    models.OneToOneField(
                        auto_created=True,
                        on_delete=django.db.models.deletion.CASCADE,
                        parent_link=True,
                        primary_key=True,
                        serialize=False,
                        to="zoo.bird",
                    ),
                ),
                ("says", models.TextField(default="")),
            ],
            bases=("zoo.bird",),
        ),
        migrations.CreateModel(
            name="Egg",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("bird", models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, to="zoo.bird")),
            ],
        ),
        migrations.CreateModel(
            name="Tide",
            fields=[
                ("at", models.DateTimeField(primary_key=True, serialize=False)),
                ("height", models.FloatField()),
            ],
        ),
        migrations.AddConstraint(
            model_name="enclosure",
            constraint=models.UniqueConstraint(
                condition=models.Q(("closed", False)), fields=("name",), name="zoo_open_name"
            ),
        ),
        migrations.AlterUniqueTogether(
            name="training",
            unique_together={("keeper", "species")},
        ),
    ]
