from core import models
from rest_framework import serializers, viewsets
from taggit.serializers import TaggitSerializer, TagListSerializerField


def viewset(of):
    """The list, the rows, and their changes, of one model."""

    class Serializer(TaggitSerializer, serializers.ModelSerializer):
        if hasattr(of, "tags"):
            tags = TagListSerializerField(required=False)

        class Meta:
            model = of
            fields = "__all__"
            read_only_fields = [field.name for field in of._meta.fields if not field.editable]

    return type(
        f"{of.__name__}ViewSet",
        (viewsets.ModelViewSet,),
        {
            "queryset": of.objects.all(),
            "serializer_class": Serializer,
            # Clients know a child, and a tag, by its slug.
            "lookup_field": "slug" if of in (models.Child, models.Tag) else "pk",
        },
    )
