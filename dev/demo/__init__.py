"""`make demo`: three laps of the flywheel on a real cluster, watched live, with a closing table and a report."""
