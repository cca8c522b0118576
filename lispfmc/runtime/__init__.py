"""All I/O that the daemons share: sockets, HTTP, configuration, logs, metrics."""
