"""Bytes to values and back. Pure: no clock, no sockets, no state.

`decode(datagram)` gives one frozen message value or raises `PeerError`; `encode(message)` gives bytes.
"""
