"""The TUN device: opened in the network namespace of the caller, gone when its descriptor is closed."""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import struct
from pathlib import Path

from xtr.dataplane.netlink import Netlink

QUEUE_LENGTH = 2000  # packets; a burst that arrives while we are not scheduled

_TUNSETIFF = 0x400454CA
_IFF_TUN, _IFF_NO_PI = 0x0001, 0x1000


class Device:
    """One TUN device, up, with its file descriptor. Raises OSError."""

    def __init__(self, name: str, mtu: int, netlink: Netlink) -> None:
        self.fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
        try:
            fcntl.ioctl(self.fd, _TUNSETIFF, struct.pack("16sH22x", name.encode(), _IFF_TUN | _IFF_NO_PI))
            self.index = socket.if_nametoindex(name)
            # no link-local address: the kernel would send its own router and multicast chatter into the tunnel
            with contextlib.suppress(OSError):
                Path(f"/proc/sys/net/ipv6/conf/{name}/addr_gen_mode").write_text("1", encoding="ascii")
            netlink.set_link_up(self.index, mtu=mtu, queue_length=QUEUE_LENGTH)
        except OSError:
            os.close(self.fd)
            raise

    def close(self) -> None:
        os.close(self.fd)
