"""Changes every table of a filled host, as weeks of use would, for a restore to undo."""

import datetime as dt
from decimal import Decimal

from core import models as core
from dbsettings.models import Setting
from django.apps import apps
from django.contrib.admin.models import ADDITION, LogEntry
from django.contrib.auth.models import Group, Permission, User
from django.contrib.contenttypes.models import ContentType
from django.db import connection, transaction
from rest_framework.authtoken.models import Token

from tests.support.filling import PASSWORD, UNTIL
from tests.support.snapshots import LEFT_OUT_APPS
from tests.zoo import models as zoo

ENTRIES = [
    core.BMI,
    core.DiaperChange,
    core.Feeding,
    core.HeadCircumference,
    core.Height,
    core.Medication,
    core.Note,
    core.Pumping,
    core.Sleep,
    core.Temperature,
    core.TummyTime,
    core.Weight,
]


#: Values for fields that do not accept every value, or without which nobody could administer the site.
CHANGED = {
    "size": "7x7",
    "timezone": "Europe/Paris",
    "language": "fr",
    "is_superuser": True,
    "is_active": True,
}


def models_kept():
    """Return every model whose table is in a backup, including those of plain many-to-many relations."""
    return [
        model
        for model in apps.get_models(include_auto_created=True)
        if model._meta.managed
        and not model._meta.proxy
        and model._meta.app_label not in LEFT_OUT_APPS
        and model is not Permission
    ]


def change_everything():
    """Delete a row of each table, change one, and add one."""
    for model in models_kept():
        if model is not User and (last := model._base_manager.order_by("pk").last()):
            last.delete()
    User.objects.get(username="nanny").delete()
    for model in models_kept():
        _change_one(model)
    add_everywhere()


def _change_one(model):
    row = model._base_manager.order_by("pk").first()
    unique = {name for constraint in model._meta.total_unique_constraints for name in constraint.fields}
    fields = [
        field
        for field in model._meta.local_concrete_fields
        if not (field.unique or field.remote_field or field.name in unique)
    ]
    if row and fields:
        values = {field.name: _another(field, getattr(row, field.name)) for field in fields}
        model._base_manager.filter(pk=row.pk).update(**values)


def _another(field, value):
    """Return a valid value of this field other than the present one."""
    if field.name in CHANGED:
        return CHANGED[field.name]
    kind = field.get_internal_type().replace("Positive", "").replace("Small", "").replace("Big", "")
    if field.choices:
        return next(choice for choice, _ in field.flatchoices if choice != value)
    match kind:
        case "BooleanField":
            return not value
        case "IntegerField":
            return 1 if value != 1 else 2
        case "FloatField":
            return 1.5 if value != 1.5 else 2.5
        case "DecimalField":
            return Decimal("1.25") if value != Decimal("1.25") else Decimal("2.5")
        case "DateTimeField":
            return UNTIL + dt.timedelta(days=1)
        case "DateField":
            return dt.date(2001, 2, 3)
        case "TimeField":
            return dt.time(1, 2, 3)
        case "DurationField":
            return dt.timedelta(days=77)
        case "UUIDField":
            return "12345678-1234-5678-1234-567812345678"
        case "BinaryField":
            return b"changed"
        case "JSONField":
            return {"changed": True}
        case "GenericIPAddressField":
            return "192.0.2.77"
    return "changed" if value != "changed" else "changed again"


def add_everywhere():
    """Add a row to every table, with a key that was never used."""
    user = User.objects.create_user("newcomer", password=PASSWORD)  # the host adds the settings
    group = Group.objects.create(name="new group")
    permission = Permission.objects.get(codename="delete_child")
    group.permissions.add(permission)
    user.groups.add(group)
    user.user_permissions.add(permission)
    Token.objects.create(user=user)
    LogEntry.objects.create(user=user, object_repr="new", action_flag=ADDITION)
    Setting.objects.create(module_name="new", class_name="New", attribute_name="new", value="1")

    child = core.Child(first_name="New", last_name="Comer", birth_date=dt.date(2026, 4, 1))
    child.save()
    for model in ENTRIES:
        row = model.objects.order_by("pk").first()
        row.pk, row.child = None, child
        model.objects.bulk_create([row])
    tag = core.Tag(name="new tag")
    tag.save()
    core.Tagged(
        content_type=ContentType.objects.get_for_model(core.Child), object_id=child.pk, tag=tag
    ).save()
    core.Timer.objects.create(user=user, child=child, name="new")
    for model in (core.WeightPercentile, core.HeightPercentile):
        row = model.objects.first()
        row.pk, row.age_in_days = None, dt.timedelta(days=77_777)
        row.save()

    zoo.Specimen.objects.create(char="new")
    zoo.Shelf.objects.create(number=77, label="new")
    species = zoo.Species.objects.create(code="new", latin="Novus")
    zoo.Sighting.objects.create(species=species)
    parrot = zoo.Parrot.objects.create(name="New", wingspan=1)
    parrot.friends.add(parrot)
    zoo.Egg.objects.create(bird=parrot)
    zoo.Passport.objects.create(animal=parrot, number="new")
    keeper = zoo.Keeper.objects.create(name="New", enclosure=zoo.Enclosure.objects.create(name="new"))
    keeper.animals.add(parrot)
    zoo.Training.objects.create(keeper=keeper, species=species, grade=3)
    zoo.Sign.objects.create(target=parrot, text="new")
    zoo.Blanket.objects.create(cot=zoo.Cot.objects.create(child=child, text="new"))
    rule = zoo.Rule.objects.create(permission=permission)
    rule.subjects.add(ContentType.objects.get_for_model(zoo.Egg))
    zoo.Reserved.objects.create(order=9)
    tide = zoo.Tide.objects.create(at=dt.datetime(1999, 12, 31, tzinfo=dt.timezone.utc), height=9)
    tide.species.add(species)
    day = zoo.Day.objects.create(date=dt.date(1999, 12, 31))
    day.species.add(species)
    zoo.Bell.objects.create(time=dt.time(23, 59)).days.add(day)
    lap = zoo.Lap.objects.create(duration=dt.timedelta(hours=7))
    lap.tides.add(tide)
    zoo.Sample.objects.create(text="added")
    zoo.Badge.objects.create(user=user, text="new")
    lock = zoo.Lock.objects.create(name="new", key=zoo.Key.objects.create(name="new"))
    zoo.Hook.objects.create(fob=zoo.Fob.objects.create(lock=lock, text="new"), text="new")
    zoo.Link.objects.create()
    zoo.Camera.objects.create(address="192.0.2.7")
    zoo.Plate.objects.create(serial="new", text="new")
    coin = zoo.Coin.objects.create(worth=Decimal("7.07"))
    coin.laps.add(lap)
    coin.change.add(coin)
    kind = zoo.Kind.objects.create(type=ContentType.objects.get_for_model(zoo.Egg), text="new")
    kind.like.add(kind)
    zoo.KindNote.objects.create(kind=kind, about=kind, text="new")
    zoo.Privilege(permission_ptr=permission, price=9).save_base(raw=True)


def numbered(field, number):
    """Return a value of this field that is different for each number up to some thousands; None if it has no such
    values."""
    if field.remote_field or field.choices or not type(field).__module__.startswith("django."):
        return None
    kind = field.get_internal_type().replace("Positive", "").replace("Small", "").replace("Big", "")
    match kind:
        case "CharField" | "TextField" | "SlugField" if (field.max_length or 99) >= 10:
            return f"w{number}"
        case "IntegerField":
            return 10_000 + number
        case "FloatField":
            return 10_000.5 + number
        case "DateTimeField":
            return dt.datetime(1980, 1, 1, tzinfo=dt.timezone.utc) + dt.timedelta(minutes=number)
        case "DateField":
            return dt.date(1980, 1, 1) + dt.timedelta(days=number)
        case "DurationField":
            return dt.timedelta(days=300, seconds=number)
        case "TimeField":
            return (dt.datetime(1980, 1, 1) + dt.timedelta(seconds=number)).time()
    return None


def add_numbered(model, number):
    """Add a row like the first one, with values by which it can be recognised. Return the name of a field that
    identifies it, and its value as text; None if there is no row, or no such field."""
    row = model._base_manager.order_by("pk").first()
    if row is None or model._meta.auto_created:
        return None
    values = {field: numbered(field, number) for field in model._meta.concrete_fields}
    for field in values.keys() - {*model._meta.local_concrete_fields}:
        values[field] = numbered(field, number + 5000)  # in the row of a parent, which gets some of its own
    numbered_fields = [field for field in model._meta.local_concrete_fields if values[field] is not None]
    if not numbered_fields:
        return None
    for field, value in values.items():
        if value is not None:
            setattr(row, field.attname, value)
        elif field.primary_key or getattr(field.remote_field, "parent_link", False):
            setattr(row, field.attname, None)
    row.pk = values[row._meta.pk]
    row._state.adding = True
    row.save(force_insert=True)
    texts = (field for field in numbered_fields if isinstance(values[field], str) and not field.unique)
    field = next(texts, numbered_fields[0])
    return field.attname, str(getattr(row, field.attname))


def renumber(model, moves):
    """Give rows other keys, and change the references to them. `moves`: old key -> new key."""
    with transaction.atomic(), connection.constraint_checks_disabled(), connection.cursor() as cursor:
        columns = [(model._meta.db_table, model._meta.pk.column, int, "")]
        for other in models_kept():
            meta = other._meta
            columns += [
                (meta.db_table, field.column, int, "")
                for field in meta.local_concrete_fields
                if field.remote_field and field.remote_field.model is model and field.target_field.primary_key
            ]
            if (generic := GENERIC.get(meta.label_lower)) is not None:
                content_type = ContentType.objects.get_for_model(model).pk
                kind = int if other is core.Tagged else str
                columns.append((meta.db_table, generic, kind, f" AND content_type_id = {content_type}"))
        quote = connection.ops.quote_name
        for table, column, kind, condition in columns:
            # Negative keys in between, so that two rows can exchange their keys.
            for step in (
                [(-new, old) for old, new in moves.items()],
                [(new, -new) for new in moves.values()],
            ):
                cursor.executemany(
                    f"UPDATE {quote(table)} SET {quote(column)} = %s WHERE {quote(column)} = %s{condition}",
                    [(kind(new), kind(old)) for new, old in step],
                )


#: Models with a generic reference -> the column of the key.
GENERIC = {"core.tagged": "object_id", "zoo.sign": "object_id", "admin.logentry": "object_id"}


def renumbered(tables, moves):
    """Return a snapshot with other keys. `moves`: model label -> old key -> new key."""
    result = {}
    for model in models_kept():
        meta = model._meta
        label = meta.label_lower
        fields = meta.local_concrete_fields
        targets = {
            field.attname: moves.get(field.remote_field.model._meta.label_lower, {})
            for field in fields
            if field.remote_field and field.target_field.primary_key
        }
        targets.setdefault(meta.pk.attname, moves.get(label, {}))
        if meta.auto_created:
            names = [field.attname for field in fields if not field.primary_key]
            result[label] = {
                tuple(
                    targets.get(name, {}).get(value, value) for name, value in zip(names, pair, strict=True)
                ): count
                for pair, count in tables[label].items()
            }
            continue
        result[label] = {}
        for row in tables[label].values():
            new = {name: targets.get(name, {}).get(value, value) for name, value in row.items()}
            if label in GENERIC and row["object_id"] is not None and all(row["content_type_id"]):
                moved = moves.get(".".join(row["content_type_id"]), {})
                kind, key = type(row["object_id"]), row["object_id"]
                new["object_id"] = next((kind(new) for old, new in moved.items() if kind(old) == key), key)
            result[label][new[meta.pk.attname]] = new
    return result
