from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("core", "0030_weightpercentile_weightpercentile_unique_age_sex")]
    operations = [
        migrations.AddField(
            "note", "image", models.ImageField("Image", blank=True, null=True, upload_to="notes/images/")
        ),
    ]
