import zoneinfo
from datetime import timedelta

from django import forms
from django.conf import settings
from django.contrib.auth import get_user_model
from django.contrib.auth.forms import UserCreationForm
from django.contrib.auth.models import Group
from django.utils.translation import gettext_lazy as _

from .models import Settings

PERSON = ["first_name", "last_name", "email"]


class ReadOnlyMixin(forms.Form):
    """One tick box decides between the two kinds of user: read-only, or superuser."""

    is_read_only = forms.BooleanField(required=False, label=_("Read only"))

    def save(self, commit=True):
        user = super().save(commit=False)
        user.is_superuser = not self.cleaned_data["is_read_only"]
        user.save()
        group = Group.objects.get(name=settings.BABY_BUDDY["READ_ONLY_GROUP_NAME"])
        (user.groups.remove if user.is_superuser else user.groups.add)(group)
        return user


class UserAddForm(ReadOnlyMixin, UserCreationForm):
    class Meta:
        model = get_user_model()
        fields = ["username", *PERSON, "is_staff"]


class UserUpdateForm(ReadOnlyMixin, forms.ModelForm):
    class Meta:
        model = get_user_model()
        fields = ["username", *PERSON, "is_staff", "is_active"]

    def __init__(self, *args, instance, initial, **kwargs):
        name = settings.BABY_BUDDY["READ_ONLY_GROUP_NAME"]
        initial = {**initial, "is_read_only": instance.groups.filter(name=name).exists()}
        super().__init__(*args, instance=instance, initial=initial, **kwargs)


class UserForm(forms.ModelForm):
    class Meta:
        model = get_user_model()
        fields = PERSON


class UserSettingsForm(forms.ModelForm):
    language = forms.ChoiceField(label=_("Language"), choices=settings.LANGUAGES)
    timezone = forms.ChoiceField(
        label=_("Timezone"), choices=[(name, name) for name in sorted(zoneinfo.available_timezones())]
    )
    dashboard_refresh_rate = forms.TypedChoiceField(
        label=_("Refresh rate"),
        required=False,
        coerce=lambda text: timedelta(minutes=int(text[3:5])),
        empty_value=None,
        choices=[("", _("disabled")), *((f"00:{n:02}:00", f"{n} min.") for n in (1, 2, 3, 4, 5, 10, 15, 30))],
    )

    class Meta:
        model = Settings
        fields = [
            "dashboard_refresh_rate",
            "dashboard_hide_empty",
            "language",
            "timezone",
            "pagination_count",
        ]
