"""Every sentence can be translated, and is, in each language that we have: whole, with its placeholders and plurals."""

import ast
import gettext
import io
import os
import re
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

import backup
from backup import exceptions

PACKAGE = Path(backup.__file__).parent
LOCALE = PACKAGE / "locale"
LANGUAGES = ["de", "es", "fr", "it", "ja", "nl", "pl", "pt_BR", "ru", "zh_Hans"]
#: Plural forms that a language has at least; 2, where it is not named.
FORMS = {"ja": 1, "zh_Hans": 1, "pl": 3, "ru": 3}
CATALOGUES = sorted(LOCALE.glob("*/LC_MESSAGES/django.po"))

needs_gettext = pytest.mark.skipif(shutil.which("msgfmt") is None, reason="GNU gettext is not installed")


# -- what is in the code ---


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.html")), ids=lambda path: path.name)
def test_templates_say_nothing_untranslated(path):
    text = path.read_text(encoding="utf-8")
    for left_out in (
        r"{% comment %}.*?{% endcomment %}",
        r"{#.*?#}",
        r"<(script|style)>.*?</\1>",
        r"{% blocktranslate .*?{% endblocktranslate %}",
        r"{%.*?%}",
        r"{{.*?}}",
    ):
        text = re.sub(left_out, "", text, flags=re.DOTALL)
    attributes = re.findall(r'\b(?:aria-label|title|alt|placeholder)="([^"]*)"', text)
    said = [*attributes, *re.sub(r"<[^>]*>", "\n", text).split("\n")]
    said = [line.strip() for line in said]
    assert [line for line in said if re.search(r"[^\W\d_]", line) and line not in ("YOUR_TOKEN",)] == []


def test_errors_say_nothing_untranslated():
    """A literal text as the message of one of our exceptions."""
    ours = {name for name, value in vars(exceptions).items() if isinstance(value, type)}
    found = []
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ours:
                found += [
                    f"{path.name}:{node.lineno}" for part in node.args[:1] if isinstance(part, ast.Constant)
                ]
    assert found == []


def test_placeholders_have_names():
    """“%s of %s” cannot change places."""
    found = []
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") in TRANSLATE:
                texts = [part.value for part in node.args if isinstance(part, ast.Constant)]
                bad = [text for text in texts if isinstance(text, str) and re.search(r"%[^(%]|{\w*}", text)]
                found += [f"{path.name}:{node.lineno} {text}" for text in bad]
                if not all(isinstance(part, ast.Constant) for part in node.args[:1]):
                    found.append(f"{path.name}:{node.lineno} is no literal")
    assert found == []


TRANSLATE = {"_", "gettext_lazy", "ngettext", "ngettext_lazy", "pgettext", "pgettext_lazy", "npgettext"}


# -- what is in the catalogues ---


@pytest.fixture(scope="module")
def wanted(tmp_path_factory):
    """The messages in the code, as the keys of a compiled catalogue: a text, or (a text with plurals, 0)."""
    folder = tmp_path_factory.mktemp("messages") / "backup"
    shutil.copytree(PACKAGE, folder, ignore=shutil.ignore_patterns("__pycache__", "locale"))
    (folder / "locale").mkdir()
    command = [sys.executable, "-m", "django", "makemessages", "--locale", "en", "--verbosity", "0"]
    environment = {name: value for name, value in os.environ.items() if name != "DJANGO_SETTINGS_MODULE"}
    subprocess.run(command, cwd=folder, env=environment, check=True)
    # A message for each, so that the compiler keeps it: the English itself.
    source, target = folder / "locale/en/LC_MESSAGES/django.po", folder / "english.po"
    subprocess.run(["msgen", "--output-file", target, source], check=True)
    return catalogue_of(target, "--no-hash")


def catalogue_of(path, *options):
    """A .po file as Python's gettext has it. What is fuzzy or not translated is not in it."""
    compiled = subprocess.run(
        ["msgfmt", *options, "--output-file", "-", path], capture_output=True, check=False
    )
    assert compiled.returncode == 0, compiled.stderr.decode()
    return parsed(compiled.stdout)


@cache
def parsed(data):
    return gettext.GNUTranslations(io.BytesIO(data))._catalog


@pytest.mark.skipif(not CATALOGUES, reason="there are no catalogues yet")
def test_all_languages_are_there():
    assert sorted(path.parts[-3] for path in CATALOGUES) == LANGUAGES


@needs_gettext
@pytest.mark.parametrize("path", CATALOGUES, ids=lambda path: path.parts[-3])
class TestCatalogue:
    def test_it_is_complete(self, path, wanted):
        found = catalogue_of(path, "--check")  # placeholders, plurals and header, too
        forms = FORMS.get(path.parts[-3], 2)
        needed = {key for key in wanted if not isinstance(key, tuple) or key[1] < forms}
        assert sorted(map(str, needed - found.keys())) == [], "not translated, or fuzzy"
        left = {key for key in found if not isinstance(key, tuple)} - wanted.keys()
        assert sorted(left) == [], "no longer in the code"

    def test_nothing_is_fuzzy(self, path):
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"^#,.*\bfuzzy\b", text, re.MULTILINE)
        assert "\n#~" not in text, "no longer in the code"

    def test_plurals(self, path):
        """As many forms as the catalogue's header says, none of them empty."""
        found = catalogue_of(path)
        count = int(re.search(r"nplurals=(\d)", found[""])[1])
        assert count >= FORMS.get(path.parts[-3], 2)
        for key in {key[0] for key in found if isinstance(key, tuple)}:
            assert all(found.get((key, number)) for number in range(count)), key

    def test_placeholders_and_tags(self, path):
        for key, text in catalogue_of(path).items():
            source = (key[0] if isinstance(key, tuple) else key).rpartition("\4")[2]
            if not source:
                continue
            # "One record" needs no number.
            optional = {"%(number)s", "%(n)s"} if isinstance(key, tuple) else set()
            assert not {*parts_of(source)} - {*parts_of(text)} - optional, (source, text)
            assert not {*parts_of(text)} - {*parts_of(source)} - optional, (source, text)

    def test_it_is_compiled(self, path):
        compiled = path.with_suffix(".mo")
        assert compiled.exists()
        assert parsed(compiled.read_bytes()) == catalogue_of(path)


def parts_of(text):
    """Its placeholders and HTML tags."""
    return re.findall(r"%\(\w+\)[sd]|</?\w+[^>]*>", text)
