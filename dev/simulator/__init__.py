"""Users, for trying Flywheel out: they chat through the router as people with an app would, and leave when the replies bore them.

    python -m dev.simulator --router http://HOST:PORT --events http://HOST:PORT --model NAME

Whether a user writes again, thumbs or leaves depends on the text of the reply alone (`taste`), in a way that no reward knows. The simulator
cannot see who answered: the response header goes to `census`, which only counts, and which `person` never meets.
"""
