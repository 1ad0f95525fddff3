"""A row or two of every model, with the values at the edges."""

import uuid
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal

from core.models import Child
from django.contrib.auth.models import Permission, User
from django.contrib.contenttypes.models import ContentType
from django.db.models import JSONField, Value

from tests.support.filling import ODD_TEXTS, odd_floats
from tests.zoo import models
from tests.zoo.fields import Size


def fill_zoo(until):
    specimens = _specimens()
    models.Specimen.objects.bulk_create(specimens)
    # Not at creation: they are set to the moment of saving.
    models.Specimen.objects.update(created=until, changed=until + timedelta(microseconds=1))
    # `bulk_create` makes a null file name an empty one.
    models.Specimen.objects.filter(char=None).update(file=None)

    birds, psittacus = [
        models.Species.objects.create(code=code, latin=latin)
        for code, latin in (("0 birds", "Aves"), ("ψ", "Psittacus"))
    ]
    models.Species.objects.filter(code="0 birds").update(parent=None)
    psittacus.parent = birds
    psittacus.save()
    models.Species.objects.create(code="00", latin="Struthio camelus", parent=psittacus)
    models.Sighting.objects.create(species=psittacus)

    polly = models.Parrot.objects.create(name="Polly", wingspan=0.1 + 0.2, says="Hello!\n")
    ghost = models.Animal.objects.create(name="Long gone", gone=True)
    emu = models.Bird.objects.create(name="", wingspan=1e-300)
    polly.friends.add(emu)
    ghost.friends.add(ghost, emu)
    models.Egg.objects.bulk_create([models.Egg(bird=polly), models.Egg(bird=emu)])
    models.Passport.objects.create(animal=polly, number="P 007")

    aviary = models.Enclosure.objects.create(name="Aviary")
    models.Enclosure.objects.create(name="Old aviary", closed=True)
    models.Enclosure.objects.create(name="Old aviary", closed=False)
    keeper = models.Keeper.objects.create(name="Kim", enclosure=aviary)
    aviary.head = keeper
    aviary.save()
    keeper.animals.add(polly, ghost)
    models.Training.objects.create(keeper=keeper, species=birds, grade=1)
    models.Training.objects.create(keeper=keeper, species=psittacus, grade=5)

    for target in (polly, psittacus, specimens[0]):
        models.Sign.objects.create(target=target, text=f"Here is {target.pk}")
    rule = models.Rule.objects.create(permission=Permission.objects.get(codename="change_egg"))
    rule.subjects.add(*ContentType.objects.filter(app_label="zoo"))
    # Order of keys is not the order of creation.
    models.Reserved.objects.bulk_create([models.Reserved(key=70, order=1), models.Reserved(key=7, order=2)])
    models.Shelf.objects.bulk_create(models.Shelf(number=n, label=f"{n}") for n in (0, 8, 2**63 - 1))
    # More of one day than are read at a time, by steps that leave some without a fraction of a second.
    start = datetime(2026, 11, 23, tzinfo=timezone.utc)
    models.Tide.objects.bulk_create(
        models.Tide(at=start + n * timedelta(seconds=30.25), height=n / 7) for n in range(1100)
    )
    for tide in models.Tide.objects.order_by("at")[:3]:
        tide.species.add(birds)
    today, tomorrow = date(2026, 11, 23), date(2026, 11, 24)
    models.Day.objects.create(date=today).species.add(birds, psittacus)
    models.Day.objects.create(date=tomorrow)
    models.Bell.objects.create(time=time(7, 0, 0, 1)).days.add(today, tomorrow)
    for user in User.objects.order_by("pk")[:2]:
        models.Badge.objects.create(user=user, text=user.username)
    for name in ("door", "gate", "shed", "barn"):
        key = models.Key.objects.create(name=f"{name} key")
        lock = models.Lock.objects.create(name=name, key=key, next=models.Lock.objects.last())
        models.Key.objects.filter(pk=key.pk).update(lock=lock)
        models.Hook.objects.create(fob=models.Fob.objects.create(lock=lock, text=name), text=name)
    for child in Child.objects.order_by("pk")[:2]:
        cot = models.Cot.objects.create(child=child, guest=child, heir=child, text="blue")
        models.Blanket.objects.create(cot=cot)
    models.Link.objects.create(next=models.Link.objects.create())
    types = ContentType.objects.filter(app_label="zoo").order_by("-pk")[:3]
    kinds = [models.Kind.objects.create(type=kind, text=kind.model) for kind in types]
    kinds[0].like.add(kinds[0], kinds[2])
    models.KindNote.objects.create(kind=kinds[1], about=kinds[2], text="of a chain")
    permission = Permission.objects.get(codename="view_egg")
    models.Privilege(permission_ptr=permission, price=7).save_base(raw=True)
    models.Sample.objects.create(text="\\ '", float=1e-7, duration=timedelta(days=-1, microseconds=1))
    lap = models.Lap.objects.create(duration=timedelta(days=-1, microseconds=1))
    lap.tides.add(start, start + timedelta(seconds=30.25))
    models.Lap.objects.create(duration=timedelta(minutes=90))
    cent = models.Coin.objects.create(worth=Decimal("0.01"))
    cent.laps.add(lap)
    cent.change.add(cent, models.Coin.objects.create(worth=Decimal("100.00")))
    for serial, text in (("", ""), ("S 1", None), ("S 2", "white")):
        models.Plate.objects.create(serial=serial, text=text)
    fill_unlike_orders()


def fill_unlike_orders():
    """Add rows whose keys not every database puts into the same order: texts by their collation, UUIDs from their ends,
    addresses by their numbers."""
    for code in ("Zebra", "antelope", "Ant"):
        models.Species.objects.create(code=code, latin=f"{code} latina")
    for ends in ("0f", "f0"):
        key = uuid.UUID(f"{ends}000000-0000-4000-8000-0000000000{ends[::-1]}")
        models.Specimen.objects.create(id=key, char=ends)
    for address in ("10.0.0.2", "10.0.0.10", "9.0.0.1", "2001:db8::2", "::2"):
        models.Camera.objects.create(address=address)


def _specimens():
    def key(number):
        return uuid.UUID(int=number << 64)

    return [
        models.Specimen(id=key(1)),
        models.Specimen(id=key(2), char="", text="", json={}, binary=b"", file="zoo/a b.txt", flag=False),
        models.Specimen(
            id=key(3),
            small=-(2**15),
            integer=-(2**31),
            big=-(2**63),
            positive_small=2**15 - 1,
            positive=2**31 - 1,
            positive_big=2**63 - 1,
            float=-1.7976931348623157e308,
            decimal=Decimal("-99999999.999999"),  # SQLite keeps 15 digits
            flag=True,
            char="trailing space ",
            text="".join(ODD_TEXTS[:5]),
            url="https://example.com/?q=%20&r=ü",
            email="o'neil@example.com",
            slug="a-slug_1",
            address="2001:db8::1",
            other_uuid=key(4),
            file="zoo/ü.txt",
            binary=bytes(range(256)),
            json=[1, 1.5, "1", True, None, {"ключ": "💥", "": []}, 10**15],
            json_required="a string",
            date=date(1000, 1, 1),
            time=time(23, 59, 59, 999999),
            datetime=datetime(9000, 12, 31, 23, 59, 59, 999999, tzinfo=timezone.utc),
            duration=timedelta(days=-1, microseconds=1),
            size=Size(3, 4),
        ),
        models.Specimen(
            id=key(5),
            decimal=Decimal("0.000001"),
            json=Value(None, JSONField()),  # JSON's null, not SQL's
            json_required=False,
            address="192.0.2.1",
            time=time(0),
            date=date(9000, 12, 31),
            duration=timedelta(days=9999),
        ),
        *(models.Specimen(id=key(100 + index), float=value) for index, value in enumerate(odd_floats())),
    ]
