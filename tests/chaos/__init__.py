"""Faults at random against a real bus, and a model that says what every subscriber must hold.

``model`` knows what was written and granted, ``judge`` holds what was delivered
against it; neither imports anything of the bus. ``ground`` and ``control`` are
the broker, registry, workers and grants of one run, ``traffic`` writes to it,
``reading`` is its subscribers, ``storm`` does it harm, and ``run`` puts them
together.
"""
