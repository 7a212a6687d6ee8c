"""Hypothesis strategies for anything that is valid input, tame and hostile."""

from __future__ import annotations

from hypothesis import strategies as st

from flywheel.stats.verdict import AnalysisPlan, Evidence, Measured, MetricPlan, Moments, NoData, Stale, Unavailable

NAMES = ("breadth", "depth", "errors", "thumbs_down")


def counts(max_n: int = 3000) -> st.SearchStrategy[Moments]:
    """Moments of small whole numbers, as the collector has them."""
    return st.integers(0, max_n).flatmap(
        lambda n: st.tuples(st.integers(0, n), st.integers(0, 5)).map(lambda x: Moments(n, x[0] * x[1], x[0] * x[1] ** 2))
    )


def enough(min_n: int = 20) -> st.SearchStrategy[Moments]:
    """Moments of 0/1 values with some of both."""
    return st.integers(min_n, 5000).flatmap(lambda n: st.integers(1, n - 1).map(lambda k: Moments(n, k, k)))


@st.composite
def hostile(draw: st.DrawFn) -> Moments:
    """Moments at the limits of what is accepted: huge, tiny, constant, of nobody."""
    n = draw(st.one_of(st.integers(0, 3), st.integers(0, 10**12)))
    if n == 0:
        return Moments(0, 0.0, 0.0)
    mean = draw(st.sampled_from([0.0, 5e-324, 1e-300, 1e-150, 1e-9, 0.1, 1.0, 7.0, 1e12, 1e80]))
    sign, spread = draw(st.sampled_from([1, -1])), draw(st.sampled_from([0.0, 5e-324, 1e-160, 1e-3, 1.0, 1e150]))
    if mean and mean * mean == 0.0:
        spread = max(spread, 1.0)  # the squares of such values are no numbers
    return Moments(n, sign * mean * n, mean * mean * n * (1 + 1e-12) + spread)


margins = st.one_of(
    st.just({}), st.builds(lambda m: {"margin": m}, st.floats(0, 1)), st.builds(lambda m: {"absolute_margin": m}, st.floats(0, 10))
)
metric_plans = st.builds(
    lambda role, direction, margin: (role, direction, margin),
    st.sampled_from(["Success", "Guardrail"]),
    st.sampled_from(["Increase", "Decrease"]),
    margins,
)


@st.composite
def plans(draw: st.DrawFn) -> AnalysisPlan:
    """Any plan of up to four metrics."""
    rest = draw(st.lists(metric_plans, max_size=3))
    forms = [("Success", draw(st.sampled_from(["Increase", "Decrease"])), draw(margins)), *rest]
    metrics = tuple(MetricPlan(name, role, way, **margin) for name, (role, way, margin) in zip(NAMES, forms, strict=False))
    alphas = st.floats(1e-4, 0.3)
    return AnalysisPlan(
        metrics,
        alpha=draw(alphas),
        harm_alpha=draw(alphas),
        sample_ratio_alpha=draw(alphas),
        minimum_users=draw(st.integers(2, 1000)),
        harm_optimize_users=draw(st.one_of(st.none(), st.integers(1, 10**6))),
    )


measurements = st.one_of(
    st.builds(Measured, counts(), counts()),
    st.builds(Measured, hostile(), hostile()),
    st.just(NoData()),
    st.builds(Stale, st.floats(0, 1e9)),
    st.builds(Unavailable, st.text(max_size=50)),
)
evidences = st.builds(
    Evidence,
    st.one_of(st.none(), st.tuples(st.integers(0, 10**12), st.integers(0, 10**12)), st.just((10**12, 10**12))),
    st.dictionaries(st.sampled_from(NAMES), measurements),
    st.booleans(),
)
