"""The policies by the names that configuration uses."""

from __future__ import annotations

from collections.abc import Mapping

from fmcc.policy import Policy
from fmcc.policy.nearest import Nearest
from fmcc.policy.never import Never

POLICIES: Mapping[str, type[Policy]] = {"nearest": Nearest, "never": Never}
