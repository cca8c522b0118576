"""What a restart must not forget, in SQLite: users, services and where they are, what was learned, moves, decisions."""
