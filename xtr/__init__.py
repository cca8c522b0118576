"""The tunnel router: encapsulates, decapsulates, notices hosts and registers them (RFC 9300, RFC 9301)."""
