"""The TUN device of one Instance-ID: opened in the network namespace of the caller, gone when its descriptor is closed.

Each packet has a virtio-net header in front. The kernel segments and checksums what we read, because a TCP checksum
costs Python more than the read that it would save; what we write may be a whole run of segments (`segments.py`).
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import struct
from pathlib import Path

from xtr.dataplane.netlink import Netlink

QUEUE_LENGTH = 8000  # packets; what arrives while we are not scheduled: a second of a service's, a third of a hundred's
VNET_BYTES = 10
PLAIN = bytes(VNET_BYTES)
"""The virtio-net header of a packet that is complete as it is."""

_TUNSETIFF, _TUNSETPERSIST, _TUNSETOFFLOAD = 0x400454CA, 0x400454CB, 0x400454D0
_IFF_TUN, _IFF_NO_PI, _IFF_VNET_HDR = 0x0001, 0x1000, 0x4000


class Device:
    """One TUN device, up, with its file descriptor. Raises OSError."""

    def __init__(self, name: str, mtu: int, netlink: Netlink, *, persistent: bool = False) -> None:
        """`persistent`: it stays when we are killed, so that what refers to it goes on."""
        self.name = name
        self.fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
        try:
            flags = _IFF_TUN | _IFF_NO_PI | _IFF_VNET_HDR
            fcntl.ioctl(self.fd, _TUNSETIFF, struct.pack("16sH22x", name.encode(), flags))
            fcntl.ioctl(self.fd, _TUNSETOFFLOAD, 0)
            fcntl.ioctl(self.fd, _TUNSETPERSIST, int(persistent))
            self.index = socket.if_nametoindex(name)
            # no link-local address: the kernel would send its own router and multicast chatter into the tunnel
            _set(f"ipv6/conf/{name}/addr_gen_mode", "1")
            # what comes out of the tunnel has sources that are not routed to it from the kernel's point of view
            _set(f"ipv4/conf/{name}/rp_filter", "0")
            netlink.set_link_up(self.index, mtu=mtu, queue_length=QUEUE_LENGTH)
        except OSError:
            os.close(self.fd)
            raise

    def full(self, netlink: Netlink) -> int:
        """Packets that its queue had no room for. Raises OSError."""
        return netlink.sending_dropped(self.index)

    def close(self) -> None:
        """Close it for good, a persistent one too."""
        with contextlib.suppress(OSError):
            fcntl.ioctl(self.fd, _TUNSETPERSIST, 0)
        os.close(self.fd)


def _set(name: str, value: str) -> None:
    with contextlib.suppress(OSError):  # a kernel without IPv6, a read-only /proc: it works, with more noise
        (Path("/proc/sys/net") / name).write_text(value, encoding="ascii")
