"""Settings all tests share."""

from hypothesis import settings

# Deadlines are timings, and a random failure that cannot be repeated teaches nothing.
settings.register_profile("kvrun", deadline=None, derandomize=True)
settings.load_profile("kvrun")
