"""The papers' analytic models, and the decision model that the controller runs. Pure numpy, no state.

`ctmc` where a user is relative to its data centre; `disruption` how long a migration disturbs; `walk` and `plane` when
to migrate, on a line and on hexagons; `decisions` the two iterations that check them; `fig14` the paper's tables.
"""
