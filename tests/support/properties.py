"""Decides how many examples Hypothesis tries: few by default, more in CI, ten times as many for a weekly run.

`--hypothesis-profile=ci` and `=thorough` choose the latter two.
"""

from hypothesis import settings

for name, number in {"quick": 40, "ci": 100, "thorough": 1000}.items():
    settings.register_profile(name, max_examples=number, deadline=None)
settings.load_profile("quick")


def examples(number, **options):
    """Decorate a test that tries this number of examples in CI, and proportionally more or fewer otherwise."""
    return settings(max_examples=number * settings.default.max_examples // 100, **options)
