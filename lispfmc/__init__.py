"""Follow-Me Cloud on LISP: the library that the daemons xtr, mapserver and fmcc share."""

__version__ = "0.1.0"
