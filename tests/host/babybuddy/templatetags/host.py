from django import forms, template
from django.apps import apps
from django.urls import reverse
from django.utils.translation import gettext_lazy as _

from babybuddy import VERSION

register = template.Library()

MENU = [
    ("children", _("Children"), ["child", "note"]),
    ("measurements", _("Measurements"), ["bmi", "head-circumference", "height", "temperature", "weight"]),
    (
        "activities",
        _("Activities"),
        ["diaperchange", "feeding", "medication", "pumping", "sleep", "tummytime"],
    ),
    ("timers", _("Timers"), ["timer"]),
]


@register.simple_tag(takes_context=True)
def menu(context):
    """The entries of the navigation that the user may see."""
    user = context["request"].user
    groups = []
    for group, title, names in MENU:
        items = []
        for name in names:
            meta = apps.get_model("core", name.replace("-", ""))._meta
            if user.has_perm(f"core.view_{meta.model_name}"):
                urls = {action: reverse(f"core:{name}-{action}") for action in ("list", "add")}
                items.append({"name": name, "meta": meta, **urls})
        groups.append({"name": group, "title": title, "entries": items})
    return groups


@register.simple_tag
def version_string():
    return VERSION


@register.simple_tag
def bootstrap(field):
    """A form field with the classes that Bootstrap wants."""
    widget = field.field.widget
    kind = "form-control"
    if isinstance(widget, forms.CheckboxInput):
        kind = "form-check-input"
    elif isinstance(widget, forms.Select):
        kind = "form-select"
    attributes = {"class": f"{kind} is-invalid" if field.errors else kind}
    if isinstance(widget, forms.Textarea):
        attributes["rows"] = 3
    return field.as_widget(attrs=attributes)
