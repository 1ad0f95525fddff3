from django.contrib.auth import get_user_model
from django.core.management.commands import migrate


class Command(migrate.Command):
    help = "Migrates, and makes the superuser admin, password admin, where there is no superuser."

    def handle(self, *args, **options):
        super().handle(*args, **options)
        users = get_user_model().objects
        if not users.filter(is_superuser=True).exists():
            users.create_superuser("admin", password="admin")
