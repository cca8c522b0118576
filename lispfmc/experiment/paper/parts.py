"""The parts of the report, in its order. A new one is a module with `make(work)` and a line here."""

from __future__ import annotations

from lispfmc.experiment.paper import deciding, downtime, migration, mobiscud, models, robustness, round_trips
from lispfmc.experiment.paper.work import Part, machines, root

PARTS = {
    part.name: part
    for part in (
        Part("model", "model and policy tables", models.make, (), 6, 6),
        Part("policy", "the decision at work", deciding.make, (), 4, 40),
        Part(
            "fig16",
            "downtime against the controller's distance",
            downtime.make,
            (root,),
            downtime.seconds(quick=True),
            downtime.seconds(quick=False),
        ),
        Part("fig15", "round-trip time through a move", round_trips.make, (root,), 40, 245),
        Part("fig17", "migration duration", migration.durations, (root, machines), 20, 266),
        Part("table1", "bandwidth of a migration", migration.bandwidth, (root, machines), 24, 90),
        Part("robustness", "figures that the papers do not have", robustness.make, (root,), 140, 400),
        Part("mobiscud", "MobiScud's round-trip times", mobiscud.make, (root,), 40, 90),
    )
}
