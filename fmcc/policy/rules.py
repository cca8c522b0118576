"""Rules by service class around a policy: what must move, what must not, and what keeps a service from flapping.

The first rule that applies decides; the runner-up says what the policy would have said. In order: a class that always
follows (an emergency service); one that is nearly finished stays; one that has just moved stays; the class's policy;
and a gain below the class's hysteresis is none.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from fmcc.policy import Decision, Go, Learner, Policy, State, Stay, View
from fmcc.policy.threshold import next_nearest


class ClassRules(msgspec.Struct, frozen=True):
    """A service class. `follow` decides for one that always follows. `finishing_s` None: nearly finished is what would
    end before its copy does."""

    policy: Policy
    follow: Policy | None = None
    finishing_s: float | None = None
    hysteresis_ms: float = 0.0
    settle_s: float = 0.0


class Rules:
    """A policy made of one for each class; services of other classes, or of none, have the default."""

    def __init__(self, default: ClassRules, classes: Mapping[str, ClassRules] | None = None) -> None:
        self._default = default
        self._classes = dict(classes or {})
        every = (self._default, *self._classes.values())
        # looked up once: to ask whether an object is a Learner takes longer than to decide
        self._learners: list[Learner] = [rules.policy for rules in every if isinstance(rules.policy, Learner)]
        self._learner_of = {
            name: rules.policy if isinstance(rules.policy, Learner) else None for name, rules in self._classes.items()
        }
        self._learner = default.policy if isinstance(default.policy, Learner) else None
        self.name = default.policy.name

    def decide(self, view: View) -> Decision:
        rules = self._of(view.service_class)
        wanted = rules.policy.decide(view)
        if not wanted.rule:
            runner_up = f"stay at {view.datacenter}" if isinstance(wanted, Go) else next_nearest(view)
            wanted = msgspec.structs.replace(wanted, rule=rules.policy.name, runner_up=runner_up)
        if rules.follow is not None:
            follow = rules.follow.decide(view)
            why = f"class {view.service_class} always follows: {follow.reason}"
            return msgspec.structs.replace(follow, reason=why, rule="always-follows", runner_up=_said(wanted))
        held = _held(rules, view, wanted)
        return wanted if held is None else msgspec.structs.replace(held, runner_up=_said(wanted))

    def policy_of(self, service_class: str) -> str:
        """The name of the policy that decides for a class."""
        return self._of(service_class).policy.name

    @property
    def learns(self) -> bool:
        """Whether anyone wants to be shown handovers."""
        return bool(self._learners)

    def observe(self, view: View) -> None:
        learner = self._learner_of.get(view.service_class, self._learner)
        if learner is not None:
            learner.observe(view)

    def state(self, service: str) -> State | None:
        """Every service is of one class, so at most one learner knows it."""
        states = (policy.state(service) for policy in self._learners)
        return next((state for state in states if state is not None), None)

    def forget(self, service: str) -> None:
        """The service is no more."""
        for policy in self._learners:
            policy.forget(service)

    def restore(self, service: str, state: State, service_class: str = "") -> None:
        policy = self._of(service_class).policy
        if isinstance(policy, Learner):
            policy.restore(service, state)

    def _of(self, service_class: str) -> ClassRules:
        return self._classes.get(service_class, self._default)


def _held(rules: ClassRules, view: View, wanted: Decision) -> Stay | None:
    """The rule that keeps the service where it is, if one does."""
    finishing_s = rules.finishing_s
    if view.remaining_s is not None:
        if finishing_s is None:
            finishing_s = _transfer_s(view, wanted)
        if view.remaining_s <= finishing_s:
            return Stay(
                f"nearly finished: {view.remaining_s:.3g} s left, at most {finishing_s:.3g} s", "nearly-finished"
            )
    if view.settled_s is not None and view.settled_s < rules.settle_s:
        return Stay(f"moved {view.settled_s:.3g} s ago, stays for {rules.settle_s:.3g} s", "settling")
    if isinstance(wanted, Go) and rules.hysteresis_ms:
        gain = _gain_ms(view, wanted.datacenter)
        if gain is not None and gain < rules.hysteresis_ms:
            return Stay(
                f"{wanted.datacenter} is {gain:.3g} ms nearer, less than {rules.hysteresis_ms:.3g} ms", "hysteresis"
            )
    return None


def _transfer_s(view: View, wanted: Decision) -> float:
    target = wanted.datacenter if isinstance(wanted, Go) else None
    return max((each.transfer_s or 0.0 for each in view.candidates if each.datacenter == target), default=0.0)


def _gain_ms(view: View, datacenter: str) -> float | None:
    rtts = {each.datacenter: each.rtt_ms for each in view.candidates}
    here, there = rtts.get(view.datacenter), rtts.get(datacenter)
    return None if here is None or there is None else here - there


def _said(decision: Decision) -> str:
    verdict = f"move to {decision.datacenter}" if isinstance(decision, Go) else "stay"
    return f"{decision.rule}: {verdict} ({decision.reason})"
