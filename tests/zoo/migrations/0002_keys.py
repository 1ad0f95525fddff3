from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("zoo", "0001_initial")]

    operations = [
        migrations.AddField("tide", "species", models.ManyToManyField(to="zoo.species")),
        migrations.CreateModel(
            name="Day",
            fields=[
                ("date", models.DateField(primary_key=True, serialize=False)),
                ("species", models.ManyToManyField(to="zoo.species")),
            ],
        ),
        migrations.CreateModel(
            name="Bell",
            fields=[
                ("time", models.TimeField(primary_key=True, serialize=False)),
                ("days", models.ManyToManyField(to="zoo.day")),
            ],
        ),
        migrations.CreateModel(
            name="Lap",
            fields=[
                ("duration", models.DurationField(primary_key=True, serialize=False)),
                ("tides", models.ManyToManyField(to="zoo.tide")),
            ],
        ),
        migrations.CreateModel(
            name="Camera",
            fields=[("address", models.GenericIPAddressField(primary_key=True, serialize=False))],
        ),
        migrations.CreateModel(
            name="Shelf",
            fields=[
                ("number", models.PositiveBigIntegerField(primary_key=True, serialize=False)),
                ("label", models.CharField(max_length=50)),
            ],
        ),
        migrations.CreateModel(
            name="Coin",
            fields=[
                (
                    "worth",
                    models.DecimalField(decimal_places=2, max_digits=8, primary_key=True, serialize=False),
                ),
                ("change", models.ManyToManyField(to="zoo.coin")),
                ("laps", models.ManyToManyField(to="zoo.lap")),
            ],
        ),
        migrations.CreateModel(
            name="Sample",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("char", models.CharField(max_length=50, null=True)),
                ("text", models.TextField(null=True)),
                ("integer", models.IntegerField(null=True)),
                ("big", models.BigIntegerField(null=True)),
                ("float", models.FloatField(null=True)),
                ("flag", models.BooleanField(null=True)),
                ("date", models.DateField(null=True)),
                ("time", models.TimeField(null=True)),
                ("datetime", models.DateTimeField(null=True)),
                ("duration", models.DurationField(null=True)),
                (
                    "species",
                    models.ForeignKey(
                        to="zoo.species", on_delete=models.CASCADE, null=True, db_constraint=False
                    ),
                ),
            ],
        ),
    ]
