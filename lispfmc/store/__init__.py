"""Where registrations live: the Store seam and its in-memory implementation."""
