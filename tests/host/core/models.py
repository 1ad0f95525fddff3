"""Baby Buddy's models: same names, fields and side effects of `save`."""

from datetime import timedelta

from babybuddy.site_settings import FeedingSettings, NapSettings
from django.conf import settings
from django.core.cache import cache
from django.core.exceptions import ValidationError
from django.core.validators import RegexValidator
from django.db import models
from django.db.models.functions import Lower
from django.utils import timezone
from django.utils.text import slugify
from django.utils.translation import gettext_lazy as _
from taggit.managers import TaggableManager as TaggitManager
from taggit.models import GenericTaggedItemBase, TagBase

from core.utils import random_color, timezone_aware_duration

PERMISSIONS = ("view", "add", "change", "delete")


class Tag(TagBase):
    color = models.CharField(
        _("Color"), max_length=32, default=random_color, validators=[RegexValidator(r"^#[0-9a-fA-F]{6}$")]
    )
    last_used = models.DateTimeField(_("Last used"), default=timezone.now)

    class Meta:
        default_permissions = PERMISSIONS
        ordering = [Lower("name")]
        verbose_name = _("Tag")
        verbose_name_plural = _("Tags")


class Tagged(GenericTaggedItemBase):
    tag = models.ForeignKey(
        Tag, on_delete=models.CASCADE, related_name="%(app_label)s_%(class)s_items", verbose_name=_("Tag")
    )

    def save_base(self, *args, **kwargs):
        """Even a raw save, as of a fixture, touches the tag."""
        self.tag.last_used = timezone.now()
        self.tag.save()
        return super().save_base(*args, **kwargs)


class TaggableManager(TaggitManager):
    pass


class Child(models.Model):
    first_name = models.CharField(_("First name"), max_length=255)
    last_name = models.CharField(_("Last name"), blank=True, max_length=255)
    birth_date = models.DateField(_("Birth date"))
    birth_time = models.TimeField(_("Birth time"), blank=True, null=True)
    slug = models.SlugField(_("Slug"), allow_unicode=True, editable=False, max_length=100, unique=True)
    picture = models.ImageField(_("Picture"), blank=True, null=True, upload_to="child/picture/")

    cache_key_count = "core.child.count"

    class Meta:
        default_permissions = PERMISSIONS
        ordering = ["last_name", "first_name"]
        verbose_name = _("Child")
        verbose_name_plural = _("Children")

    def __str__(self):
        return f"{self.first_name} {self.last_name}".strip()

    def save(self, *args, **kwargs):
        self.slug = slugify(self, allow_unicode=True)
        super().save(*args, **kwargs)
        cache.set(self.cache_key_count, Child.objects.count(), None)

    def delete(self, *args, **kwargs):
        super().delete(*args, **kwargs)
        cache.set(self.cache_key_count, Child.objects.count(), None)

    @classmethod
    def count(cls):
        """The number of children, cached for ever."""
        return cache.get_or_set(cls.cache_key_count, Child.objects.count, None)


def child_key(related_name, **options):
    return models.ForeignKey(
        Child, on_delete=models.CASCADE, related_name=related_name, verbose_name=_("Child"), **options
    )


class Entry(models.Model):
    """Something that a parent wrote down."""

    tags = TaggableManager(blank=True, through=Tagged)

    class Meta:
        abstract = True
        default_permissions = PERMISSIONS

    def __str__(self):
        return str(self._meta.verbose_name)


class Noted(models.Model):
    notes = models.TextField(_("Notes"), blank=True, null=True)

    class Meta:
        abstract = True


class Measurement(Noted, Entry):
    date = models.DateField(_("Date"), default=timezone.localdate)

    class Meta(Entry.Meta):
        abstract = True
        ordering = ["-date", "-id"]


class Moment(Entry):
    time = models.DateTimeField(_("Time"), default=timezone.localtime)

    class Meta(Entry.Meta):
        abstract = True
        ordering = ["-time"]


class Period(Entry):
    start = models.DateTimeField(_("Start time"), default=timezone.localtime)
    end = models.DateTimeField(_("End time"), default=timezone.localtime)
    duration = models.DurationField(_("Duration"), editable=False, null=True)

    class Meta(Entry.Meta):
        abstract = True
        ordering = ["-start"]

    def save(self, *args, **kwargs):
        if self.start and self.end:
            self.duration = timezone_aware_duration(self.start, self.end)
        super().save(*args, **kwargs)

    def clean(self):
        if self.start and self.end and not timedelta() <= self.end - self.start <= timedelta(hours=24):
            raise ValidationError(_("Start time must come before end time, by 24 hours at most."))


class BMI(Measurement):
    child = child_key("bmi")
    bmi = models.FloatField(_("BMI"))

    class Meta(Measurement.Meta):
        verbose_name = verbose_name_plural = _("BMI")


class DiaperChange(Noted, Moment):
    child = child_key("diaper_change")
    wet = models.BooleanField(_("Wet"))
    solid = models.BooleanField(_("Solid"))
    color = models.CharField(
        _("Color"),
        blank=True,
        choices=[
            ("black", _("Black")),
            ("brown", _("Brown")),
            ("green", _("Green")),
            ("yellow", _("Yellow")),
        ],
        max_length=255,
    )
    amount = models.FloatField(_("Amount"), blank=True, null=True)

    class Meta(Moment.Meta):
        verbose_name = _("Diaper Change")
        verbose_name_plural = _("Diaper Changes")


class Feeding(Noted, Period):
    child = child_key("feeding")
    type = models.CharField(
        _("Type"),
        choices=[
            ("breast milk", _("Breast milk")),
            ("formula", _("Formula")),
            ("fortified breast milk", _("Fortified breast milk")),
            ("solid food", _("Solid food")),
        ],
        max_length=255,
    )
    method = models.CharField(
        _("Method"),
        choices=[
            ("bottle", _("Bottle")),
            ("left breast", _("Left breast")),
            ("right breast", _("Right breast")),
            ("both breasts", _("Both breasts")),
            ("parent fed", _("Parent fed")),
            ("self fed", _("Self fed")),
        ],
        max_length=255,
    )
    amount = models.FloatField(_("Amount"), blank=True, null=True)

    settings = FeedingSettings()

    class Meta(Period.Meta):
        verbose_name = _("Feeding")
        verbose_name_plural = _("Feedings")


class HeadCircumference(Measurement):
    child = child_key("head_circumference")
    head_circumference = models.FloatField(_("Head Circumference"))

    class Meta(Measurement.Meta):
        verbose_name = verbose_name_plural = _("Head Circumference")


class Height(Measurement):
    child = child_key("height")
    height = models.FloatField(_("Height"))

    class Meta(Measurement.Meta):
        verbose_name = verbose_name_plural = _("Height")


class Medication(Noted, Moment):
    child = child_key("medication")
    name = models.CharField(_("Medication Name"), max_length=255, db_index=True)
    dosage = models.FloatField(_("Dosage"), blank=True, null=True)
    dosage_unit = models.CharField(
        _("Dosage Unit"),
        max_length=20,
        choices=[("mg", _("MG")), ("ml", _("ML")), ("tablets", _("Tablets")), ("drops", _("Drops"))],
        blank=True,
        default="",
    )
    time = models.DateTimeField(_("Time Taken"), default=timezone.localtime, db_index=True)
    next_dose_interval = models.DurationField(_("Next Dose Interval"), blank=True, null=True)

    class Meta(Moment.Meta):
        verbose_name = _("Medication")
        verbose_name_plural = _("Medications")


class Note(Moment):
    child = child_key("note")
    note = models.TextField(_("Note"))
    # Null on rows that are older than this field.
    image = models.ImageField(_("Image"), blank=True, null=True, upload_to="notes/images/")

    class Meta(Moment.Meta):
        verbose_name = _("Note")
        verbose_name_plural = _("Notes")


class Pumping(Noted, Period):
    child = child_key("pumping")
    amount = models.FloatField(_("Amount"))

    class Meta(Period.Meta):
        verbose_name = verbose_name_plural = _("Pumping")


class Sleep(Noted, Period):
    child = child_key("sleep")
    nap = models.BooleanField(_("Nap"), blank=True)

    settings = NapSettings(_("Nap settings"))

    class Meta(Period.Meta):
        verbose_name = verbose_name_plural = _("Sleep")

    def save(self, *args, **kwargs):
        if self.nap is None:
            bounds = Sleep.settings
            self.nap = bounds.nap_start_min <= timezone.localtime(self.start).time() <= bounds.nap_start_max
        super().save(*args, **kwargs)


class Temperature(Noted, Moment):
    child = child_key("temperature")
    temperature = models.FloatField(_("Temperature"))

    class Meta(Moment.Meta):
        verbose_name = verbose_name_plural = _("Temperature")


class Timer(models.Model):
    child = child_key("timers", blank=True, null=True)
    name = models.CharField(_("Name"), blank=True, max_length=255, null=True)
    start = models.DateTimeField(_("Start time"), default=timezone.now)
    active = models.BooleanField(_("Active"), default=True, editable=False)
    user = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="timers", verbose_name=_("User")
    )

    class Meta:
        default_permissions = PERMISSIONS
        ordering = ["-start"]
        verbose_name = _("Timer")
        verbose_name_plural = _("Timers")

    def __str__(self):
        return self.name or f"{_('Timer')} #{self.pk}"

    def save(self, *args, **kwargs):
        self.name = self.name or None
        super().save(*args, **kwargs)


class TummyTime(Period):
    child = child_key("tummy_time")
    milestone = models.CharField(_("Milestone"), blank=True, max_length=255)

    class Meta(Period.Meta):
        verbose_name = verbose_name_plural = _("Tummy Time")


class Weight(Measurement):
    child = child_key("weight")
    weight = models.FloatField(_("Weight"))

    class Meta(Measurement.Meta):
        verbose_name = verbose_name_plural = _("Weight")


class Percentile(models.Model):
    """A row of a growth chart. Migrations fill these tables: a fresh host is not empty."""

    age_in_days = models.DurationField()
    sex = models.CharField(max_length=255, choices=[("girl", _("Girl")), ("boy", _("Boy"))])

    class Meta:
        abstract = True


class WeightPercentile(Percentile):
    p3_weight = models.FloatField()
    p15_weight = models.FloatField()
    p50_weight = models.FloatField()
    p85_weight = models.FloatField()
    p97_weight = models.FloatField()

    class Meta:
        constraints = [models.UniqueConstraint(fields=["age_in_days", "sex"], name="unique_age_sex")]


class HeightPercentile(Percentile):
    p3_height = models.FloatField()
    p15_height = models.FloatField()
    p50_height = models.FloatField()
    p85_height = models.FloatField()
    p97_height = models.FloatField()

    class Meta:
        constraints = [models.UniqueConstraint(fields=["age_in_days", "sex"], name="unique_age_sex_height")]
