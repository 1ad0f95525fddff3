"""The ways to restore, in words. A new `RestoreMode` needs an entry here, one in `forms.MODES`, and an option of the
command `restore`."""

from __future__ import annotations

from dataclasses import dataclass

from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _

from ..options import RestoreMode
from ..restore.plan import Plan


@dataclass(frozen=True)
class ModeInWords:
    """The words of a mode. `title` and `about`: for the preview. `switch`: for the button that changes the preview to
    this mode. `question`: the title of the last question before something is deleted. `instead`: what to do if the
    restore is refused."""

    title: str | Promise
    about: str | Promise
    switch: str | Promise
    question: str | Promise
    instead: str | Promise


#: For the modes that delete rows only in exceptional cases.
_QUESTION, _INSTEAD = _("Delete existing records?"), _("Choose another backup.")

MODES = {
    RestoreMode.OVERWRITE: ModeInWords(
        _("Keep existing data"),
        _("Existing data is kept. Where an entry is both here and in the backup, the backup wins."),
        _("Preview with existing data kept"),
        _QUESTION,
        _INSTEAD,
    ),
    RestoreMode.KEEP_BOTH: ModeInWords(
        _("Keep both"),
        _(
            "Existing data is kept. Where another entry has the number of one in the backup, you will have both."
        ),
        _("Preview with both kept"),
        _QUESTION,
        _INSTEAD,
    ),
    RestoreMode.CLEAR: ModeInWords(
        _("Clear existing data before restore"),
        _("All existing data is replaced. Afterwards you have exactly what is in the backup."),
        _("Preview with existing data cleared"),
        _("Replace everything?"),
        _("Keep existing data, or choose another backup."),
    ),
}


def other_modes(plan: Plan) -> list[RestoreMode]:
    """Return the other modes that a preview offers. Keeping both is only offered if it makes a difference."""
    changes = plan.changes.values()
    if plan.mode.clears:  # its plan does not say whether a row is another record
        loses = any(each.removed or each.changed for each in changes)
    else:
        loses = any(each.replaced for each in changes)
    offered = (mode for mode in RestoreMode if mode is not plan.mode)
    return [mode for mode in offered if loses or mode is not RestoreMode.KEEP_BOTH]
