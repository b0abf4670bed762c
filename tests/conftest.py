"""Settings of all tests."""

from hypothesis import settings

# An example that takes long on a loaded machine is no failure; all else stays as it is, in CI too.
settings.register_profile("relume", parent=settings(), deadline=None)
settings.load_profile("relume")
