"""How many examples Hypothesis tries. Few by default; `--hypothesis-profile=thorough` tries ten times as many."""

from hypothesis import settings

settings.register_profile("quick", max_examples=100, deadline=None)
settings.register_profile("thorough", max_examples=1000, deadline=None)
settings.load_profile("quick")


def examples(number, **options):
    """Decorates a test that is to try so many, in the quick profile."""
    return settings(max_examples=number * settings.default.max_examples // 100, **options)
