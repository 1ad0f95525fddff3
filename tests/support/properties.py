"""How many examples Hypothesis tries: few at a desk, more in CI, ten times as many once a week.

`--hypothesis-profile=ci` and `=thorough` ask for them.
"""

from hypothesis import settings

for name, number in {"quick": 40, "ci": 100, "thorough": 1000}.items():
    settings.register_profile(name, max_examples=number, deadline=None)
settings.load_profile("quick")


def examples(number, **options):
    """Decorates a test that is to try so many, in CI."""
    return settings(max_examples=number * settings.default.max_examples // 100, **options)
