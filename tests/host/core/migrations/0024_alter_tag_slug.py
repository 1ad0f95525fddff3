from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("core", "0019_tag_tagged_note_tags")]
    operations = [
        migrations.AlterField(
            "tag",
            "slug",
            models.SlugField(allow_unicode=True, max_length=100, unique=True, verbose_name="slug"),
        ),
    ]
