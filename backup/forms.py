"""What pages and scripts send, checked. What they say of a restore becomes values of `options`."""

from __future__ import annotations

from typing import Any

from django import forms
from django.core.files.uploadedfile import UploadedFile
from django.forms.widgets import CheckboxInput
from django.utils.translation import gettext_lazy as _

from backup.options import Part, RestoreMode, RestoreOptions, parts_named

#: Field of a `RestoreForm` -> the mode that it chooses. By default, existing data is kept.
MODES = {"clear_existing_data": RestoreMode.CLEAR, "keep_both": RestoreMode.KEEP_BOTH}
YES = ("true", "on", "1", "yes")
NO = ("false", "off", "0", "no", "")


class StrictBooleanField(forms.Field):
    """Checkbox that also takes true/false, 1/0, on/off, yes/no from a script. Left out, or empty, means no.

    Everything else is an error: a typo such as "flase" must not decide between keeping and clearing.
    """

    default_error_messages = {"invalid": _("This must be true or false, not “%(value)s”.")}

    class widget(CheckboxInput):
        def value_from_datadict(self, data: Any, files: Any, name: str) -> Any:
            return data.get(name, "")

    def to_python(self, value: Any) -> bool:
        word = str(value).strip().lower()
        if word in YES:
            return True
        if word in NO:
            return False
        raise forms.ValidationError(
            self.error_messages["invalid"], code="invalid", params={"value": str(value)[:40]}
        )


class PartsField(forms.Field):
    """The parts of a backup to restore, as several values or separated by commas. By default, all parts."""

    default_error_messages = {
        "invalid": _("“%(value)s” is none of: entries, accounts, settings."),
        "required": _("Choose what comes back: entries, accounts, settings."),
    }

    class widget(forms.CheckboxSelectMultiple):
        def value_from_datadict(self, data: Any, files: Any, name: str) -> Any:
            if name not in data:
                return None
            return ",".join(data.getlist(name)) if hasattr(data, "getlist") else data[name]

    def to_python(self, value: Any) -> tuple[Part, ...]:
        if value is None:
            return tuple(Part)
        try:
            parts = parts_named(str(value))
        except ValueError as error:
            raise forms.ValidationError(
                self.error_messages["invalid"], code="invalid", params={"value": str(error)[:40]}
            ) from error
        if not parts:
            raise forms.ValidationError(self.error_messages["required"], code="required")
        return parts


class RestoreForm(forms.Form):
    """What to restore, a file, the `upload` of an earlier preview, or the name of a `kept` backup, and how."""

    backup_file = forms.FileField(
        required=False,
        label=_("Backup file"),
        error_messages={"empty": _("This file is empty.")},
    )
    upload = forms.CharField(required=False, widget=forms.HiddenInput)
    kept = forms.CharField(required=False)
    #: Only from the pages: the number of records to be deleted, according to the preview; the checkbox below the last
    #: question; and whether that question was asked, which distinguishes an unticked box from a page without it.
    removed = forms.IntegerField(required=False, min_value=0)
    confirmed = StrictBooleanField(required=False)
    asked = StrictBooleanField(required=False)
    #: Only from the pages: whether existing accounts are replaced or kept, whether that was asked, and the parts in the
    #: preview.
    accounts = forms.ChoiceField(required=False, choices=[("replace", ""), ("keep", "")])
    asked_accounts = StrictBooleanField(required=False)
    previewed = PartsField(required=False)
    parts = PartsField(required=False)
    clear_existing_data = StrictBooleanField(required=False, label=_("Clear existing data before restore"))
    keep_both = StrictBooleanField(required=False)
    clear_unknown_apps = StrictBooleanField(required=False)
    leave_out = StrictBooleanField(required=False)
    without_safety_copy = StrictBooleanField(required=False)
    merge_tags = StrictBooleanField(required=False)
    edited = StrictBooleanField(required=False, label=_("I changed this file by hand"))
    #: The key of an encrypted backup. Pages only pass it on in forms, never in an address.
    key = forms.CharField(required=False, max_length=200)

    def clean(self) -> dict[str, Any]:
        data = super().clean() or self.cleaned_data
        if not self.errors and not any(data.get(name) for name in ("backup_file", "upload", "kept")):
            self.add_error(
                "backup_file", forms.ValidationError(_("Choose a backup file first."), code="missing")
            )
        if sum(bool(data.get(name)) for name in MODES) > 1:
            self.add_error("keep_both", _("Existing data cannot be both cleared and kept."))
        if data.get("accounts") == "keep" and data.get("parts"):
            data["parts"] = tuple(part for part in data["parts"] if part is not Part.ACCOUNTS)
            if not data["parts"]:
                self.add_error("parts", self.fields["parts"].error_messages["required"])
        return data

    @property
    def file(self) -> UploadedFile[bytes] | None:
        file: UploadedFile[bytes] | None = self.cleaned_data["backup_file"]
        return file

    @property
    def upload_id(self) -> str:
        return "" if self.file else str(self.cleaned_data["upload"])

    @property
    def typed_key(self) -> str:
        return str(self.cleaned_data["key"])

    @property
    def kept_name(self) -> str:
        return str(self.cleaned_data["kept"])

    @property
    def options(self) -> RestoreOptions:
        chosen = (mode for name, mode in MODES.items() if self.cleaned_data[name])
        return RestoreOptions(
            next(chosen, RestoreMode.OVERWRITE),
            parts=self.cleaned_data["parts"],
            clear_unknown_apps=bool(self.cleaned_data["clear_unknown_apps"]),
            edited=bool(self.cleaned_data["edited"]),
            leave_out=bool(self.cleaned_data["leave_out"]),
            merge_tags=bool(self.cleaned_data["merge_tags"]),
            without_safety_copy=bool(self.cleaned_data["without_safety_copy"]),
        )

    @property
    def is_confirmed(self) -> bool:
        """Whether nothing is deleted, or the last question was answered with yes."""
        options = self.options
        deletes = options.mode.clears or options.without_safety_copy or self.cleaned_data["removed"]
        return not deletes or bool(self.cleaned_data["confirmed"])

    @property
    def lacks_answer(self) -> bool:
        """Whether the page asked what to do with the accounts, but got no answer."""
        return bool(self.cleaned_data["asked_accounts"]) and not self.cleaned_data["accounts"]

    @property
    def has_other_parts(self) -> bool:
        """Whether the preview was of other parts than those that are to be restored."""
        return "previewed" in self.data and self.cleaned_data["previewed"] != self.cleaned_data["parts"]

    @property
    def mode_as_sent(self) -> RestoreMode:
        """The mode to show if the form is shown again, whatever is wrong with it."""
        sent = (mode for name, mode in MODES.items() if str(self[name].value() or "").strip().lower() in YES)
        return next(sent, RestoreMode.OVERWRITE)


def fields_of(options: RestoreOptions) -> dict[str, str]:
    """Return the fields of a `RestoreForm` for these options, for hidden inputs."""
    true = {
        **{name: options.mode is mode for name, mode in MODES.items()},
        "clear_unknown_apps": options.clear_unknown_apps,
        "edited": options.edited,
        "leave_out": options.leave_out,
        "merge_tags": options.merge_tags,
        "without_safety_copy": options.without_safety_copy,
    }
    parts = {"parts": ",".join(part.value for part in options.parts)}
    return {
        "clear_existing_data": "false",  # always there, since it may be the initial value
        **(parts if options.parts != tuple(Part) else {}),
        **{name: "true" for name, value in true.items() if value},
    }


class RunForm(forms.Form):
    """How to make a kept backup. `label`: a note. `photos`: include photos; by default, BACKUP_PHOTOS decides.
    `automatic`: only if one is due by the schedule. `leave_out`: leave out what cannot be read."""

    label = forms.CharField(required=False, max_length=200, label=_("Label"))
    photos = StrictBooleanField(required=False)
    automatic = StrictBooleanField(required=False)
    leave_out = StrictBooleanField(required=False)

    @property
    def photos_as_sent(self) -> bool | None:
        return bool(self.cleaned_data["photos"]) if self.data.get("photos") else None


class DownloadForm(forms.Form):
    """How to make a download. `encrypt`: encrypt it, whatever the settings say. `photos`: include photos."""

    encrypt = StrictBooleanField(required=False)
    photos = StrictBooleanField(required=False)


class KeyForm(forms.Form):
    """What to do with the key of encrypted backups. `new`: make another one. `last_group`: its last characters, which
    show that it is kept somewhere else, too."""

    new = StrictBooleanField(required=False)
    last_group = forms.CharField(required=False, max_length=20)

    def clean(self) -> dict[str, Any]:
        if not self.errors and not (self.cleaned_data.get("new") or self.cleaned_data.get("last_group")):
            self.add_error(
                "last_group",
                forms.ValidationError(_("Type in the last group of the key."), code="missing"),
            )
        return self.cleaned_data


class LabelForm(forms.Form):
    """The label of a kept backup."""

    label = forms.CharField(required=False, max_length=200, label=_("Label"))


class UndoForm(forms.Form):
    """`last`: undo only if the safety copy is that of the last restore."""

    last = StrictBooleanField(required=False)


class PinForm(forms.Form):
    """Whether a kept backup is pinned."""

    pinned = StrictBooleanField(required=False)

    def clean(self) -> dict[str, Any]:
        if "pinned" not in self.data:
            self.add_error(
                "pinned", forms.ValidationError(_("Say pinned=true or pinned=false."), code="missing")
            )
        return self.cleaned_data
