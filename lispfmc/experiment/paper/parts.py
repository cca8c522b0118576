"""The parts of the report, in its order. A new one is a module with `make(work)` and a line here."""

from __future__ import annotations

from lispfmc.experiment.paper import deciding, downtime, models
from lispfmc.experiment.paper.work import Part, root

PARTS = {
    part.name: part
    for part in (
        Part("model", "model and policy tables", models.make),
        Part("policy", "the decision at work", deciding.make),
        Part("fig16", "downtime against the controller's distance", downtime.make, (root,)),
    )
}
