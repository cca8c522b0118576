"""The controller's HTTP API: its answers and requests as types, and the routes. Its document is made from the types."""
