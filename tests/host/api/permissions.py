from rest_framework.permissions import DjangoModelPermissions


class BabyBuddyDjangoModelPermissions(DjangoModelPermissions):
    """Reading needs a permission too. As a default it is a trap: an APIView without a queryset fails."""

    perms_map = {
        "GET": ["%(app_label)s.view_%(model_name)s"],
        "OPTIONS": ["%(app_label)s.add_%(model_name)s"],
        "HEAD": [],
        "POST": ["%(app_label)s.add_%(model_name)s"],
        "PATCH": ["%(app_label)s.change_%(model_name)s"],
        "DELETE": ["%(app_label)s.delete_%(model_name)s"],
    }
