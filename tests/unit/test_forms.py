import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.http import QueryDict

from backup.forms import RestoreForm, fields_of
from backup.options import RestoreMode, RestoreOptions, parts_named


def form(file=b"PK", **data):
    return RestoreForm(data, {"backup_file": SimpleUploadedFile("b.zip", file)} if file is not None else {})


@pytest.mark.parametrize("word", ["true", "True", "on", "1", "yes", " TRUE "])
def test_words_for_clear(word):
    sent = form(clear_existing_data=word)
    assert sent.is_valid()
    assert sent.options.mode is sent.mode_as_sent is RestoreMode.CLEAR


@pytest.mark.parametrize("data", [{}, *({"clear_existing_data": w} for w in ["false", "OFF", "0", "no", ""])])
def test_words_for_keep(data):
    sent = form(**data)
    assert sent.is_valid()
    assert sent.options.mode is sent.mode_as_sent is RestoreMode.OVERWRITE


@pytest.mark.parametrize("word", ["flase", "2", "none", "truee", "null", "-"])
def test_a_typo_is_neither(word):
    sent = form(clear_existing_data=word)
    assert not sent.is_valid()
    assert list(sent.errors) == ["clear_existing_data"]
    assert word in str(sent.errors)


def test_something_to_restore_is_needed():
    assert form(file=None).errors.get_json_data()["backup_file"][0]["code"] == "missing"
    assert form(file=b"").errors.get_json_data()["backup_file"][0]["code"] == "empty"
    assert form(file=None, upload="abc").is_valid()


def test_the_form_that_is_shown_first():
    assert RestoreForm().mode_as_sent is RestoreMode.OVERWRITE


@pytest.mark.parametrize("mode", RestoreMode)
@pytest.mark.parametrize("clear_unknown_apps", [True, False])
def test_the_fields_of_options_mean_these_options(mode, clear_unknown_apps):
    options = RestoreOptions(mode, clear_unknown_apps=clear_unknown_apps)
    sent = form(**fields_of(options))
    assert sent.is_valid()
    assert sent.options == options


@pytest.mark.parametrize(
    ("data", "confirmed"),
    [
        ({}, True),
        ({"removed": "0"}, True),
        ({"removed": "1"}, False),
        ({"removed": "1", "confirmed": "yes"}, True),
        ({"clear_existing_data": "true"}, False),
        ({"clear_existing_data": "true", "confirmed": "no"}, False),
        ({"clear_existing_data": "true", "confirmed": "yes"}, True),
    ],
)
def test_what_deletes_must_be_confirmed(data, confirmed):
    sent = form(**data)
    assert sent.is_valid()
    assert sent.is_confirmed is confirmed


@pytest.mark.parametrize(
    ("data", "parts"),
    [
        ("", "entries,accounts,settings"),
        ("parts=entries", "entries"),
        ("parts=settings,+Entries", "entries,settings"),
        ("parts=settings&parts=entries", "entries,settings"),
        ("accounts=keep", "entries,settings"),
        ("accounts=replace&parts=accounts", "accounts"),
    ],
)
def test_parts(data, parts):
    sent = RestoreForm(QueryDict(f"upload=a&{data}"))
    assert sent.is_valid()
    assert sent.options.parts == parts_named(parts)
    assert form(**fields_of(sent.options)).is_valid()
    again = form(**fields_of(sent.options))
    assert again.is_valid()
    assert again.options == sent.options


@pytest.mark.parametrize(
    "data", ["parts=", "parts=entry", "parts=entries,all", "accounts=keep&parts=accounts"]
)
def test_no_part_and_what_is_none(data):
    assert list(RestoreForm(QueryDict(f"upload=a&{data}")).errors) == ["parts"]
