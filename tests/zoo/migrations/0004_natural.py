import django.contrib.auth.models as django_auth
from django.db import migrations, models
from django.db.models.deletion import CASCADE


def its_key(other, **options):
    return models.OneToOneField(on_delete=CASCADE, primary_key=True, serialize=False, to=other, **options)


class Migration(migrations.Migration):
    dependencies = [
        ("auth", "0012_alter_user_first_name_max_length"),
        ("contenttypes", "0002_remove_content_type_name"),
        ("zoo", "0003_circles"),
    ]

    operations = [
        migrations.CreateModel(
            name="Kind",
            fields=[
                ("type", its_key("contenttypes.contenttype", related_name="+")),
                ("text", models.CharField(max_length=50)),
                ("like", models.ManyToManyField(to="zoo.kind")),
            ],
        ),
        migrations.CreateModel(
            name="KindNote",
            fields=[
                ("kind", its_key("zoo.kind")),
                ("about", models.ForeignKey(on_delete=CASCADE, related_name="+", to="zoo.kind")),
                ("text", models.CharField(max_length=50)),
            ],
        ),
        migrations.CreateModel(
            name="Privilege",
            fields=[
                ("permission_ptr", its_key("auth.permission", auto_created=True, parent_link=True)),
                ("price", models.IntegerField()),
            ],
            bases=("auth.permission",),
            managers=[("objects", django_auth.PermissionManager())],
        ),
    ]
