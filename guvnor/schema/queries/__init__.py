"""The catalog queries behind a snapshot: one for each kind of object, all of the same shape.

Each row is an object. Its columns are ``kind``, ``identity`` (its name as SQL writes it), ``parents`` (the
handles of what it is dropped with), and optionally ``sql`` (the statement that creates it; without it,
``definition`` is that statement), ``granted`` and ``revoked`` (how its privileges differ from the kind's
default). Every other column is an attribute, under the name that a report uses.

The parameter ``schema`` is the schema's oid. The catalogs are those of PostgreSQL 14 to 18 (documentation,
part "Internals", chapter "System Catalogs"). Objects of extensions are left out. The server prints
expressions, and leaves out the schema of visible names, so the session's ``search_path`` must contain it.
"""
