"""A whole multi-domain network on one machine, with real packets."""
