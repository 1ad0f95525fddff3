"""Somebody else's plug-in, as it were: models of every shape that Baby Buddy itself does not have."""
