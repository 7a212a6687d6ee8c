"""Statistics of a rollout: pure functions of counts, on the standard library only.

`verdict.assess(plan, evidence)` is the one decision; the other modules are what it is made of.
"""
