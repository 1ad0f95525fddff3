"""Which models a backup holds, and in which order."""

import pytest
from core import models as core
from django.apps import apps
from django.contrib.admin.models import LogEntry
from django.core.management import call_command
from django.db import DEFAULT_DB_ALIAS, connection, connections
from rest_framework.authtoken.models import Token, TokenProxy

from backup.checks import check_scope
from backup.scope import elsewhere, generic_references, is_here, label_of, models_in_scope, routed
from tests.zoo import models as zoo

LABELS = [label_of(model) for model in models_in_scope()]


@pytest.mark.parametrize(
    "label",
    [
        "auth.user",
        "auth.group",
        "authtoken.token",
        "babybuddy.settings",
        "admin.logentry",
        "dbsettings.setting",
        "core.child",
        "core.tag",
        "core.tagged",
        "core.weightpercentile",
        "zoo.bird",
        "zoo.training",
    ],
)
def test_held(label):
    assert LABELS.count(label) == 1


@pytest.mark.parametrize(
    "label",
    [
        "contenttypes.contenttype",  # each database makes its own
        "auth.permission",
        "sessions.session",  # a server's
        "axes.accessattempt",
        "authtoken.tokenproxy",  # a proxy
        "zoo.tameanimal",
        "zoo.ghost",  # not managed
        "auth.user_groups",  # in its owner's records
        "zoo.animal_friends",
    ],
)
def test_left_out(label):
    assert label not in LABELS


def test_every_app_is_looked_at():
    """All of the host's models are held, but for those that are left out for a reason."""
    for model in apps.get_models():
        meta = model._meta
        left_out = meta.proxy or not meta.managed or meta.app_label in ("sessions", "axes", "contenttypes")
        assert (meta.label_lower in LABELS) == (not left_out and meta.label_lower != "auth.permission"), (
            meta.label
        )


def test_what_a_model_refers_to_stands_before_it():
    """But where they go round in a circle."""
    places = {label: place for place, label in enumerate(LABELS)}
    for model in models_in_scope():
        for field in [*model._meta.local_concrete_fields, *model._meta.local_many_to_many]:
            if field.related_model in (None, model) or label_of(field.related_model) not in places:
                continue
            target = label_of(field.related_model)
            if (label_of(model), target) not in {("zoo.enclosure", "zoo.keeper"), ("zoo.key", "zoo.lock")}:
                assert places[target] < places[label_of(model)], field


def test_the_order_is_always_the_same():
    assert [label_of(model) for model in models_in_scope()] == LABELS


@pytest.mark.parametrize(
    ("exclude", "gone"),
    [
        (["core.timer"], {"core.timer"}),
        (["core.Timer", "CORE.NOTE"], {"core.timer", "core.note"}),
        (["zoo"], {label for label in LABELS if label.startswith("zoo.")}),
        (["Zoo"], {label for label in LABELS if label.startswith("zoo.")}),
        (["nothing.such"], set()),
        ([], set()),
    ],
)
def test_exclude(exclude, gone):
    assert {label_of(model) for model in models_in_scope(exclude=exclude)} == {*LABELS} - gone


@pytest.mark.parametrize(
    ("option", "here", "not_here"),
    [
        ("required_db_vendor", connection.vendor, "oracle"),
        ("required_db_features", ["supports_transactions"], ["supports_transactions", "supports_nothing"]),
    ],
)
def test_what_is_for_other_databases_only(monkeypatch, option, here, not_here):
    """`migrate` makes no table of it, so none is missing; and a file that holds it is of another database."""
    monkeypatch.setattr(zoo.Shelf._meta, option, here)
    assert [label_of(model) for model in models_in_scope()] == LABELS
    assert elsewhere() == routed() == []
    monkeypatch.setattr(zoo.Shelf._meta, option, not_here)
    assert {label_of(model) for model in models_in_scope()} == {*LABELS} - {"zoo.shelf"}
    assert not is_here(zoo.Shelf)
    assert elsewhere() == ["zoo.shelf"]
    assert routed() == []


class Apart:
    """The zoo is in another database. That its empty tables are in this one, too, is nobody's concern."""

    def db_for_read(self, model, **hints):
        return "apart" if model._meta.app_label == "zoo" else None

    db_for_write = db_for_read


class Replicated:
    """All is read from a copy, and written here."""

    def db_for_read(self, model, **hints):
        return "replica"


def test_what_is_only_read_from_and_written_to_another_database(settings):
    settings.DATABASE_ROUTERS = [Apart()]
    there = {label for label in LABELS if label.startswith("zoo.")}
    assert {label_of(model) for model in models_in_scope()} == {*LABELS} - there
    assert {*routed()} == {*elsewhere()} == there
    assert [message.id for message in check_scope(None)] == ["backup.W008"]


class PeopleApart:
    """The users are in another database, with or without other models."""

    def __init__(self, alias, *apps):
        self.alias, self.apps = alias, {"auth", "authtoken", *apps}

    def db_for_read(self, model, **hints):
        return self.alias if model._meta.app_label in self.apps else None

    db_for_write = db_for_read


@pytest.fixture
def further(settings):
    """Further aliases of `DATABASES`: one that leads to the default database, one to a copy of it, one elsewhere."""
    same = connections[DEFAULT_DB_ALIAS].settings_dict
    added = {
        "same": {**same, "USER": "somebody", "OPTIONS": {}},
        "mirror": {**same, "HOST": "replica", "TEST": {**same["TEST"], "MIRROR": DEFAULT_DB_ALIAS}},
        "elsewhere": {**same, "NAME": "elsewhere"},
        "other_server": {**same, "HOST": "elsewhere"},
    }
    connections.settings.update(added)
    yield
    for alias in added:
        del connections.settings[alias]


@pytest.mark.parametrize("alias", ["elsewhere", "other_server", "unknown"])
@pytest.mark.parametrize("more", [[], ["core", "zoo"]])
def test_users_in_another_database(settings, further, alias, more):
    """What goes where they go is there, too."""
    settings.DATABASE_ROUTERS = [PeopleApart(alias, *more)]
    there = {label for label in LABELS if label.split(".")[0] in {"auth", "authtoken", *more}}
    assert {label_of(model) for model in models_in_scope()} == {*LABELS} - there
    assert {*routed()} - {"auth.permission"} == there
    (message,) = check_scope(None)
    assert message.id == "backup.W008"
    assert "auth.user" in message.msg
    assert "users of this site" in message.hint


def test_a_backup_without_users_says_so(settings, further, family, tmp_path, capsys):
    for alias, lacks in (("same", False), ("elsewhere", True)):
        settings.DATABASE_ROUTERS = [PeopleApart(alias)]
        call_command("backup", output=str(tmp_path / f"{alias}.zip"))
        assert ("users of this site are not in the backup" in capsys.readouterr().err) == lacks


@pytest.mark.parametrize("alias", ["same", "mirror"])
def test_users_in_the_same_database_by_another_alias(settings, further, alias):
    settings.DATABASE_ROUTERS = [PeopleApart(alias, "core")]
    assert [label_of(model) for model in models_in_scope()] == LABELS
    assert routed() == check_scope(None) == []


def test_what_is_read_from_a_copy_is_here(settings):
    settings.DATABASE_ROUTERS = [Replicated()]
    assert [label_of(model) for model in models_in_scope()] == LABELS
    assert routed() == []


def test_labels():
    assert label_of(core.Child) == "core.child"
    assert label_of(TokenProxy) == label_of(Token) == "authtoken.token"
    assert label_of(zoo.TameAnimal) == "zoo.animal"


def test_generic_references():
    assert generic_references(core.Tagged) == [("content_type", "object_id")]
    assert generic_references(zoo.Sign) == [("content_type", "object_id")]
    assert generic_references(LogEntry) == [("content_type", "object_id")]
    assert generic_references(core.Feeding) == []
