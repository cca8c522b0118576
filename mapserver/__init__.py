"""The combined Map-Resolver and Map-Server (RFC 9301) with publish/subscribe (RFC 9437)."""
