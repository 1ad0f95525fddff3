import pytest
from django.core.files.uploadedfile import SimpleUploadedFile

from backup.forms import RestoreForm


def form(file=b"PK", **data):
    return RestoreForm(data, {"backup_file": SimpleUploadedFile("b.zip", file)} if file is not None else {})


@pytest.mark.parametrize("word", ["true", "True", "on", "1", "yes", " TRUE "])
def test_words_for_clear(word):
    sent = form(clear_existing_data=word)
    assert sent.is_valid()
    assert sent.clear is True
    assert sent.clear_as_sent is True


@pytest.mark.parametrize("data", [{}, *({"clear_existing_data": w} for w in ["false", "OFF", "0", "no", ""])])
def test_words_for_keep(data):
    sent = form(**data)
    assert sent.is_valid()
    assert sent.clear is False
    assert sent.clear_as_sent is False


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
    assert RestoreForm().clear_as_sent is False
