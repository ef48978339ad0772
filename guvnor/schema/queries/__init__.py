"""The catalog queries behind a snapshot: one a kind of object, all in the same shape.

Each row is an object: ``kind``, ``identity`` (its name as SQL writes it), ``parents`` (what it goes away
with, as ``kind:identity``), optionally ``sql`` (the statement that makes it; it is ``definition`` where that
column is left out), ``granted`` and ``revoked``
(privileges beside the kind's default); every other column is an attribute, named as a report shall name it.
The parameter ``schema`` is the schema's oid. The catalogs are those of PostgreSQL 14 to 18 (documentation,
part "Internals", chapter "System Catalogs"). Objects of extensions are left out. Expressions are printed by
the server, names unqualified where they are visible, so the session's ``search_path`` must name the schema.
"""
