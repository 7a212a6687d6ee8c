"""Pure planners, one module a kind: `plan_<kind>(observed, now) -> Plan`. No clock, no network, no logging."""
