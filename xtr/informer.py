"""Telling other xTRs that an EID has moved: a signed Map-Notify where we share a key, else an SMR (RFC 9301 §6.1).

A Map-Notify is sent again until it is acknowledged; a peer that never does gets an SMR. Both are rate limited, because
the evidence that starts them is a data packet, which anybody can send.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from lispfmc.core.deadlines import Deadlines
from lispfmc.core.effects import Emit, Reject, Send
from lispfmc.core.mapcache import UNUSABLE_PRIORITY
from lispfmc.core.retransmission import Retransmissions, Schedule
from lispfmc.wire.address import Endpoint, Ip, Prefix, ip_text
from lispfmc.wire.messages import EidRecord, MapNotify, MapNotifyAck, MapRequest, RequestRecord, address_of
from xtr.asking import CONTROL_PORT
from xtr.effects import XtrEffect
from xtr.forwarding import Forwarding
from xtr.mobility import Mobilities, Tells
from xtr.senders import Senders
from xtr.settings import XtrSettings

NOTIFY_SCHEDULE = Schedule(first_s=0.2, longest_s=3.2, tries=5)  # RFC 8085 §3.1.1: at least one RTT apart, doubling
SMR_S = 3.0  # RFC 9301 §6.1: one SMR per destination RLOC in this time
TOLD_S = 3.0  # a peer that goes on sending to us is told again after this
MOST_OPEN = 4096  # (EID, peer) pairs that are being told at once; beyond that, SMRs and the next evidence do

_Told = tuple[Prefix, Ip]


class Informer:
    """What is being told to whom."""

    def __init__(
        self,
        settings: XtrSettings,
        nonces: Iterator[int],
        request_nonces: Iterator[int],
        senders: Senders,
        forwarding: Forwarding,
    ) -> None:
        self._rlocs = settings.rlocs
        self._most_peers = settings.limits.peers_informed
        self._mobilities = Mobilities(settings)
        self._nonces = nonces
        self._request_nonces = request_nonces
        self._senders = senders
        self._forwarding = forwarding
        self._retransmissions: Retransmissions[_Told] = Retransmissions()
        self._open: dict[_Told, int] = {}
        self._told: Deadlines[_Told] = Deadlines()
        self._smr_sent: Deadlines[Ip] = Deadlines()

    def inform(self, record: EidRecord, eid: Prefix, peers: Sequence[Ip], now: float) -> list[XtrEffect]:
        """Tell `peers` where `eid` is now, except ourselves and where it went, as far as EIDs of its range have it."""
        if self._mobilities.of(eid).tells in (Tells.SOLICIT_SENDERS, Tells.NOBODY):
            return []
        return self._tell(record, eid, peers, now)

    def _tell(self, record: EidRecord, eid: Prefix, peers: Sequence[Ip], now: float) -> list[XtrEffect]:
        self._cool_down(now)
        by_notify = self._mobilities.of(eid).tells is Tells.NOTIFY
        there = {locator.address for locator in record.locators if locator.priority != UNUSABLE_PRIORITY}
        others = [peer for peer in dict.fromkeys(peers) if peer not in there and peer not in self._rlocs]
        effects: list[XtrEffect] = []
        notified: list[str] = []
        for peer in others[: self._most_peers]:
            key = self._senders.key_of_peer(peer) if by_notify else None
            if key is None or len(self._open) >= MOST_OPEN:
                effects += self._solicit(eid, peer, now)
                continue
            notify = MapNotify.of(record, nonce=next(self._nonces))
            self._open[eid, peer] = notify.nonce
            self._told.set((eid, peer), now + TOLD_S)
            send = Send(notify, Endpoint(peer, CONTROL_PORT), key)
            effects += self._retransmissions.start((eid, peer), [send], NOTIFY_SCHEDULE, now)
            notified.append(ip_text(peer))
        if notified:
            effects.append(Emit("peers.informed", {"eid": str(eid), "peers": notified}))
        return effects

    def evidence(self, record: EidRecord, eid: Prefix, peer: Ip, now: float) -> list[XtrEffect]:
        """A packet shows that `peer` does not know yet."""
        self._cool_down(now)
        if (eid, peer) in self._open or (eid, peer) in self._told or self._mobilities.of(eid).tells is Tells.NOBODY:
            return []
        return self._tell(record, eid, [peer], now)

    def stop(self, eid: Prefix) -> None:
        """What is being told about `eid` is no longer true."""
        for told in [told for told in self._open if told[0] == eid]:
            del self._open[told]
            self._retransmissions.acknowledged(told)

    def acknowledged(self, ack: MapNotifyAck, source: Endpoint) -> None:
        """An authenticated Map-Notify-Ack; one that answers nothing is no error (RFC 9301 §5.7)."""
        for record in ack.records:
            if record.prefix is not None and self._open.get((record.prefix, source.ip)) == ack.nonce:
                del self._open[record.prefix, source.ip]
                self._retransmissions.acknowledged((record.prefix, source.ip))

    def reflected(self, notify: MapNotify, source: Endpoint) -> Reject | None:
        """A Map-Notify of ours that comes back as its receiver's: the key of a pair is the same both ways."""
        if any(
            self._open.get((record.prefix, source.ip)) == notify.nonce for record in notify.records if record.prefix
        ):
            return Reject("reflected", source, f"nonce {notify.nonce:016x} is ours")
        return None

    def next_deadline(self) -> float | None:
        return self._retransmissions.next()

    def expired(self, now: float) -> list[XtrEffect]:
        """Say it again, or solicit a Map-Request instead."""
        self._cool_down(now)
        due, given_up = self._retransmissions.expired(now)
        effects: list[XtrEffect] = [*due]
        for eid, peer in given_up:
            self._open.pop((eid, peer), None)
            effects += self._solicit(eid, peer, now)
        return effects

    def _solicit(self, eid: Prefix, peer: Ip, now: float) -> list[XtrEffect]:
        if peer in self._smr_sent or len(self._smr_sent) >= MOST_OPEN:
            return []
        self._smr_sent.set(peer, now + SMR_S)
        # RFC 9301 §6.1: the record is an EID of the receiver's; without a mapping for one, its RLOC stands for it
        theirs = self._forwarding.cache.behind(peer) or Prefix.host(peer, eid.iid)
        request = MapRequest.of(
            RequestRecord.of(theirs),
            nonce=next(self._request_nonces),
            itr_rlocs=self._rlocs,
            source_eid=address_of(eid),
            smr=True,
            no_reply=True,
        )
        fields = {"eid": str(eid), "peer": ip_text(peer)}
        return [Send(request, Endpoint(peer, CONTROL_PORT)), Emit("smr.sent", fields)]

    def _cool_down(self, now: float) -> None:
        for _ in self._told.pop_expired(now):
            pass
        for _ in self._smr_sent.pop_expired(now):
            pass
