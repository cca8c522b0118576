"""The parts of the report, in its order. A new one is a module with `make(work)` and a line here."""

from __future__ import annotations

from lispfmc.experiment.paper import deciding, downtime, migration, mobiscud, models, robustness, round_trips
from lispfmc.experiment.paper.work import Part, machines, root

PARTS = {
    part.name: part
    for part in (
        Part("model", "model and policy tables", models.make),
        Part("policy", "the decision at work", deciding.make),
        Part("fig16", "downtime against the controller's distance", downtime.make, (root,)),
        Part("fig15", "round-trip time through a move", round_trips.make, (root,)),
        Part("fig17", "migration duration", migration.durations, (root, machines)),
        Part("table1", "bandwidth of a migration", migration.bandwidth, (root, machines)),
        Part("robustness", "figures that the papers do not have", robustness.make, (root,)),
        Part("mobiscud", "MobiScud's round-trip times", mobiscud.make, (root,)),
    )
}
