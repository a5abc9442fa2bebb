"""Has the handler's role the rights that it needs, and no others?

It needs USAGE on the schema and EXECUTE on pipehandler.ingest (and pipehandler.health). With anything more, a handler that a
hostile message took over could read or change other people's mail.
"""

from collections.abc import Iterator
from typing import Any

from pipehandler.store.connection import Store

from .finding import Finding

_TOO_FEW = "The handler cannot store anything: every message would be deferred."
_TOO_MANY = "A hostile message that takes over the handler could use it: read, change or delete mail, or worse."

_GROUP = "pipehandler_ingest"

_ROLE = """
SELECT rolname::text AS role, rolsuper AS "SUPERUSER", rolcreaterole AS "CREATEROLE", rolcreatedb AS "CREATEDB",
       rolreplication AS "REPLICATION", rolbypassrls AS "BYPASSRLS"
  FROM pg_roles
 WHERE rolname = current_user
"""
_ATTRIBUTES = ("SUPERUSER", "CREATEROLE", "CREATEDB", "REPLICATION", "BYPASSRLS")

_NEEDED = """
SELECT 'USAGE ON SCHEMA pipehandler' AS privilege, has_schema_privilege(n.oid, 'USAGE') AS may,
       EXISTS (SELECT FROM pg_roles WHERE rolname = 'pipehandler_ingest') AND has_schema_privilege('pipehandler_ingest', n.oid, 'USAGE') AS group_may
  FROM pg_namespace n
 WHERE n.nspname = 'pipehandler'
UNION ALL
SELECT 'EXECUTE ON FUNCTION pipehandler.' || quote_ident(p.proname), has_function_privilege(p.oid, 'EXECUTE'),
       EXISTS (SELECT FROM pg_roles WHERE rolname = 'pipehandler_ingest') AND has_function_privilege('pipehandler_ingest', p.oid, 'EXECUTE')
  FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
 WHERE n.nspname = 'pipehandler' AND p.proname IN ('ingest', 'health')
 ORDER BY privilege DESC
"""

# The role, and every role that it is a member of, also through others.
_REACHED = """
WITH RECURSIVE reached AS (
    SELECT oid FROM pg_roles WHERE rolname = current_user
    UNION
    SELECT m.roleid FROM pg_auth_members m JOIN reached ON reached.oid = m.member
)
SELECT oid FROM reached
"""

# pg_use_reserved_connections only helps to connect.
_MEMBERSHIPS = """
SELECT DISTINCT r.rolname::text AS role, b.rolname::text AS member
  FROM pg_auth_members m
  JOIN pg_roles r ON r.oid = m.roleid
  JOIN pg_roles b ON b.oid = m.member
 WHERE m.member = ANY (%(reached)s::oid[])
   AND r.rolname <> 'pg_use_reserved_connections'
   AND (r.rolsuper OR r.rolcreaterole OR r.rolname ~ '^pg_' OR r.rolname ~ '^pipehandler_(reader|upkeep|lessor|lookup)$')
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

# What is granted to PUBLIC, to the role, or to a group that was not found above. Functions: only those that have more
# rights than who calls them, and not what the migrations granted to the handler's group.
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
      FROM pg_database d, aclexplode(d.datacl) a
     WHERE d.datname = current_database() AND a.privilege_type = 'CREATE'
    UNION ALL
    SELECT 'FUNCTION ' || quote_ident(n.nspname) || '.' || quote_ident(p.proname)
           || '(' || pg_get_function_identity_arguments(p.oid) || ')', p.proowner, a.grantee, a.privilege_type
      FROM pg_proc p JOIN n ON n.oid = p.pronamespace, aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) a
     WHERE p.prosecdef AND p.proname NOT IN ('ingest', 'health')
       AND a.grantee IS DISTINCT FROM (SELECT oid FROM pg_roles WHERE rolname = 'pipehandler_ingest')
)
SELECT g.name, coalesce(quote_ident(r.rolname), 'PUBLIC') AS grantee, string_agg(DISTINCT g.privilege_type, ', ') AS privileges
  FROM granted g LEFT JOIN pg_roles r ON r.oid = g.grantee
 WHERE g.grantee <> g.owner AND (g.grantee = 0 OR g.grantee = ANY (%(reached)s::oid[]))
   AND (r.rolname IS NULL OR (r.rolname !~ '^pg_' AND r.rolname !~ '^pipehandler_(reader|upkeep|lessor|lookup)$'))
 GROUP BY g.name, r.rolname
 ORDER BY g.name, r.rolname
"""


def quoted(name: str) -> str:
    """A name for SQL."""
    plain = name.isascii() and name.replace("_", "a").isalnum() and name.lower() == name and not name[0].isdigit()
    return name if plain else '"' + name.replace('"', '""') + '"'


def check_role(store: Store, superuser: str) -> list[Finding]:
    """What is wrong with the rights of the role that `store` connects as. superuser: the name of one, for the lines that mend.

    Raises StoreError.
    """
    (role,) = store.rows(_ROLE)
    if role["SUPERUSER"]:  # may do everything, whatever else is said of it
        return [_attribute(role["role"], "SUPERUSER")]
    return [
        *_too_few(store, role["role"]),
        *(_attribute(role["role"], name) for name in _ATTRIBUTES if role[name]),
        *_too_many(store, superuser),
    ]


def _too_few(store: Store, role: str) -> Iterator[Finding]:
    lacking: list[dict[str, Any]] = [row for row in store.rows(_NEEDED) if not row["may"]]
    if lacking and all(row["group_may"] for row in lacking):
        what = ", ".join(row["privilege"] for row in lacking)
        yield Finding("rights-too-few", f"role {role} lacks {what}", _TOO_FEW, f"GRANT {_GROUP} TO {quoted(role)};")
        return
    for row in lacking:
        only_health = row["privilege"].endswith(".health")
        yield Finding(
            "rights-too-few",
            f"role {role} lacks {row['privilege']}",
            "Nobody can ask how the database goes without a role that reads mail." if only_health else _TOO_FEW,
            f"GRANT {row['privilege']} TO {_GROUP}; GRANT {_GROUP} TO {quoted(role)};",
        )


def _more(what: str, mend: str) -> Finding:
    return Finding("rights-too-many", what, _TOO_MANY, mend)


def _attribute(role: str, name: str) -> Finding:
    return _more(f"role {role} is {name}", f"ALTER ROLE {quoted(role)} NO{name};")


def _too_many(store: Store, superuser: str) -> Iterator[Finding]:
    reached = {"reached": [row["oid"] for row in store.rows(_REACHED)]}
    for row in store.rows(_MEMBERSHIPS, reached):
        member, role = row["member"], row["role"]
        yield _more(f"role {member} is a member of {role}", f"REVOKE {quoted(role)} FROM {quoted(member)};")
    for row in store.rows(_OWNED, reached):
        what = f"role {row['owner']} owns the database, its schema pipehandler, or something in it"
        yield _more(what, f"REASSIGN OWNED BY {row['owner']} TO {quoted(superuser)};")
    for row in store.rows(_GRANTS, reached):
        grantee, privileges, name = row["grantee"], row["privileges"], row["name"]
        yield _more(f"{grantee} has {privileges} on {name}", f"REVOKE {privileges} ON {name} FROM {grantee};")
