"""The engagement collector: what the router logged and the app reported, as per-user totals and their moments.

Everything it knows is a set of *facts* (a message was first tried then, answered then; a thumb was given then) that merge by minimum and
union. Merging is commutative and idempotent, so order, duplicates and restarts cannot change a number. A user's metrics are a pure function
of the facts (`outcome`); the moments are kept by difference, and corrected when a fact turns up late.

Layers, lowest first: clock, identity, scrub, logline, events (parsing) < facts, outcome (pure) < store < experiments, ingest, mature,
conversations, tail (what is done to the store) < service < exposition, api < __main__.
"""
