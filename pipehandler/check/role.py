"""Check that the handler's role has the rights that it needs, and no others.

It needs USAGE on the schema and EXECUTE on pipehandler.ingest (and pipehandler.health). With anything more, a hostile message
that took over the handler could read or change other mail.
"""

from collections.abc import Iterator
from typing import Any

from pipehandler.store.connection import Store
from pipehandler.store.roles import ADDRESS_ADMIN, FORMER, INGEST, LOOKUP, MAINTENANCE, READER

from .finding import Finding

_TOO_FEW = "The handler cannot store anything: every message would be deferred."
TOO_MANY = "A hostile message that takes over the handler could use it to read, change or delete mail, or worse."
_NO_HEALTH = "The state of the database can only be queried by a role that can read mail."

_OTHER_GROUPS = [READER, LOOKUP, ADDRESS_ADMIN, MAINTENANCE, *FORMER]
"""The group roles of the schema that the handler must not be a member of."""

_ROLE = """
SELECT rolname::text AS role, rolsuper AS "SUPERUSER", rolcreaterole AS "CREATEROLE", rolcreatedb AS "CREATEDB",
       rolreplication AS "REPLICATION", rolbypassrls AS "BYPASSRLS"
  FROM pg_roles
 WHERE rolname = current_user
"""
_ATTRIBUTES = ("SUPERUSER", "CREATEROLE", "CREATEDB", "REPLICATION", "BYPASSRLS")

_NEEDED = f"""
SELECT 'USAGE ON SCHEMA pipehandler' AS privilege, has_schema_privilege(n.oid, 'USAGE') AS may,
       EXISTS (SELECT FROM pg_roles WHERE rolname = '{INGEST}') AND has_schema_privilege('{INGEST}', n.oid, 'USAGE') AS group_may
  FROM pg_namespace n
 WHERE n.nspname = 'pipehandler'
UNION ALL
SELECT 'EXECUTE ON FUNCTION pipehandler.' || quote_ident(p.proname), has_function_privilege(p.oid, 'EXECUTE'),
       EXISTS (SELECT FROM pg_roles WHERE rolname = '{INGEST}') AND has_function_privilege('{INGEST}', p.oid, 'EXECUTE')
  FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
 WHERE n.nspname = 'pipehandler' AND p.proname IN ('ingest', 'health')
 ORDER BY privilege DESC
"""  # noqa: S608 # a constant

# The role, and every role that it is a member of, directly or indirectly.
_REACHED = """
WITH RECURSIVE reached AS (
    SELECT oid FROM pg_roles WHERE rolname = current_user
    UNION
    SELECT m.roleid FROM pg_auth_members m JOIN reached ON reached.oid = m.member
)
SELECT oid FROM reached
"""

# pg_use_reserved_connections only allows to connect.
_MEMBERSHIPS = """
SELECT DISTINCT r.rolname::text AS role, b.rolname::text AS member
  FROM pg_auth_members m
  JOIN pg_roles r ON r.oid = m.roleid
  JOIN pg_roles b ON b.oid = m.member
 WHERE m.member = ANY (%(reached)s::oid[])
   AND r.rolname <> 'pg_use_reserved_connections'
   AND (r.rolsuper OR r.rolcreaterole OR r.rolname ~ '^pg_' OR r.rolname = ANY (%(groups)s))
 ORDER BY role, member
"""

_OWNED = """
WITH n AS (SELECT oid, nspowner FROM pg_namespace WHERE nspname = 'pipehandler'),
owned AS (
    SELECT nspowner AS owner FROM n
    UNION SELECT relowner FROM pg_class JOIN n ON n.oid = relnamespace
    UNION SELECT proowner FROM pg_proc JOIN n ON n.oid = pronamespace
    UNION SELECT datdba FROM pg_database WHERE datname = current_database()
)
SELECT owner::regrole::text AS owner FROM owned WHERE owner = ANY (%(reached)s::oid[]) ORDER BY owner
"""

# What is granted to PUBLIC, to the role, or to a group that was not reported above. Objects that the handler may create, in
# the schema public for example, could be taken for those of a program or a person that runs with more rights. Of the functions, only those with more
# rights than their caller (SECURITY DEFINER), except those that the migrations grant to the handler's group.
_GRANTS = """
WITH n AS (SELECT oid, nspname, nspacl FROM pg_namespace WHERE nspname = 'pipehandler'),
relation AS (
    SELECT c.oid, c.relowner AS owner, c.relacl, c.relkind, quote_ident(n.nspname) || '.' || quote_ident(c.relname) AS name
      FROM pg_class c JOIN n ON n.oid = c.relnamespace
     WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S')
),
granted AS (
    SELECT CASE c.relkind WHEN 'S' THEN 'SEQUENCE ' ELSE '' END || c.name AS name, c.owner, a.grantee, a.privilege_type
      FROM relation c, aclexplode(c.relacl) a
    UNION ALL
    SELECT c.name, c.owner, a.grantee, a.privilege_type || ' (' || quote_ident(t.attname) || ')'
      FROM pg_attribute t JOIN relation c ON c.oid = t.attrelid, aclexplode(t.attacl) a
    UNION ALL
    SELECT 'SCHEMA ' || quote_ident(n.nspname), 0, a.grantee, a.privilege_type
      FROM n, aclexplode(n.nspacl) a
     WHERE a.privilege_type = 'CREATE'
    UNION ALL
    SELECT 'DATABASE ' || quote_ident(d.datname), d.datdba, a.grantee, a.privilege_type
      FROM pg_database d, aclexplode(coalesce(d.datacl, acldefault('d', d.datdba))) a
     WHERE d.datname = current_database() AND a.privilege_type IN ('CREATE', 'TEMPORARY')
    UNION ALL
    SELECT 'SCHEMA ' || quote_ident(s.nspname), s.nspowner, a.grantee, a.privilege_type
      FROM pg_namespace s, aclexplode(coalesce(s.nspacl, acldefault('n', s.nspowner))) a
     WHERE s.nspname <> 'pipehandler' AND s.nspname !~ '^pg_' AND a.privilege_type = 'CREATE'
    UNION ALL
    SELECT 'FUNCTION ' || quote_ident(n.nspname) || '.' || quote_ident(p.proname)
           || '(' || pg_get_function_identity_arguments(p.oid) || ')', p.proowner, a.grantee, a.privilege_type
      FROM pg_proc p JOIN n ON n.oid = p.pronamespace, aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) a
     WHERE p.prosecdef AND p.proname NOT IN ('ingest', 'health')
       AND a.grantee IS DISTINCT FROM (SELECT oid FROM pg_roles WHERE rolname = %(ingest)s)
)
SELECT g.name, coalesce(quote_ident(r.rolname), 'PUBLIC') AS grantee, string_agg(DISTINCT g.privilege_type, ', ') AS privileges
  FROM granted g LEFT JOIN pg_roles r ON r.oid = g.grantee
 WHERE g.grantee <> g.owner AND (g.grantee = 0 OR g.grantee = ANY (%(reached)s::oid[]))
   AND (r.rolname IS NULL OR (r.rolname !~ '^pg_' AND r.rolname <> ALL (%(groups)s)))
 GROUP BY g.name, r.rolname
 ORDER BY g.name, r.rolname
"""


def quoted(name: str) -> str:
    """Quote a name for SQL, if it needs quotes."""
    plain = name.isascii() and name.replace("_", "a").isalnum() and name.lower() == name and not name[0].isdigit()
    return name if plain else '"' + name.replace('"', '""') + '"'


def check_role(store: Store, superuser: str) -> list[Finding]:
    """Check the rights of the role that `store` connects as. superuser: the name of a superuser, for the fixes.

    Raises StoreError.
    """
    (role,) = store.rows(_ROLE)
    if role["SUPERUSER"]:  # which includes all other rights
        return [_attribute(role["role"], "SUPERUSER")]
    return [
        *_too_few(store, role["role"]),
        *(_attribute(role["role"], name) for name in _ATTRIBUTES if role[name]),
        *_too_many(store, superuser),
    ]


def _too_few(store: Store, role: str) -> Iterator[Finding]:
    missing: list[dict[str, Any]] = [row for row in store.rows(_NEEDED) if not row["may"]]
    if missing and all(row["group_may"] for row in missing):
        privileges = ", ".join(row["privilege"] for row in missing)
        yield Finding(
            "rights-too-few", f"role {role} lacks {privileges}", _TOO_FEW, f"GRANT {INGEST} TO {quoted(role)};"
        )
        return
    for row in missing:
        only_health = row["privilege"].endswith(".health")
        yield Finding(
            "rights-too-few",
            f"role {role} lacks {row['privilege']}",
            _NO_HEALTH if only_health else _TOO_FEW,
            f"GRANT {row['privilege']} TO {INGEST}; GRANT {INGEST} TO {quoted(role)};",
        )


def _excess(what: str, fix: str) -> Finding:
    return Finding("rights-too-many", what, TOO_MANY, fix)


def _attribute(role: str, name: str) -> Finding:
    return _excess(f"role {role} is {name}", f"ALTER ROLE {quoted(role)} NO{name};")


def _too_many(store: Store, superuser: str) -> Iterator[Finding]:
    parameters = {"reached": [row["oid"] for row in store.rows(_REACHED)], "groups": _OTHER_GROUPS, "ingest": INGEST}
    for row in store.rows(_MEMBERSHIPS, parameters):
        member, role = row["member"], row["role"]
        yield _excess(f"role {member} is a member of {role}", f"REVOKE {quoted(role)} FROM {quoted(member)};")
    for row in store.rows(_OWNED, parameters):
        what = f"role {row['owner']} owns the database, its schema pipehandler, or an object in it"
        yield _excess(what, f"REASSIGN OWNED BY {row['owner']} TO {quoted(superuser)};")
    for row in store.rows(_GRANTS, parameters):
        grantee, privileges, name = row["grantee"], row["privileges"], row["name"]
        yield _excess(f"{grantee} has {privileges} on {name}", f"REVOKE {privileges} ON {name} FROM {grantee};")
