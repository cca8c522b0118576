"""The papers' evaluation, repeated: one module a part, a registry of parts, and a report that stands beside theirs.

A part measures or computes and returns a `Result`: values, sentences made from them, charts as data. Nothing that a
part returns names a file or knows of HTML; `archive`, `drawing` and `page` write.
"""
