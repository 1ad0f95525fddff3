from datetime import time

import dbsettings
from django.utils.translation import gettext_lazy as _


class NapSettings(dbsettings.Group):
    nap_start_min = dbsettings.TimeValue(_("Default minimum nap start time"), default=time(6))
    nap_start_max = dbsettings.TimeValue(_("Default maximum nap start time"), default=time(18))


class FeedingSettings(dbsettings.Group):
    feeding_diff_end = dbsettings.BooleanValue(
        _("Time diff between feedings based on end"), default=False, required=False
    )
