-- The group roles. Grant them to login roles, for example
--     CREATE ROLE pipehandler LOGIN IN ROLE pipehandler_ingest;
--
-- Roles belong to the cluster, not to the database. Another database may have created them already, may be creating
-- them now, or may still use a former name. So this file runs at the start of every migration, creates what is missing,
-- and needs no right to do so where nothing is missing.

DO $$
DECLARE
    role           record;
    item           record;
    former_role    oid;
    used_here      boolean;
    used_elsewhere boolean;
    options        text;
BEGIN
    FOR role IN
        SELECT r.name, r.former, r.purpose
          FROM (VALUES
                ('pipehandler_ingest', NULL,
                 'The handler on a mail host: may call pipehandler.ingest; cannot read or change anything.'),
                ('pipehandler_reader', NULL,
                 'Applications and people that read mail: may read everything and change nothing.'),
                ('pipehandler_maintenance', 'pipehandler_upkeep',
                 'Retention and repair: may read everything, change what is derived from the bytes, and delete.'),
                ('pipehandler_lookup', NULL,
                 'Postfix at RCPT TO: may call pipehandler.lookup; cannot read or change anything.'),
                ('pipehandler_address_admin', 'pipehandler_lessor',
                 'Applications that issue addresses: may call the functions for leases; cannot read or change a table.'),
                ('pipehandler_web', NULL,
                 'The inbox page: may call functions that take the key of an inbox; cannot read or change a table.')
               ) AS r (name, former, purpose)
    LOOP
        -- Step 1: the role exists. When another database changes it at this moment, look again.
        FOR pass IN 1..5 LOOP
            BEGIN
                IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = role.name) THEN
                    IF EXISTS (SELECT FROM pg_roles WHERE rolname = role.former) THEN
                        EXECUTE format('ALTER ROLE %I RENAME TO %I', role.former, role.name);
                    ELSE
                        EXECUTE format('CREATE ROLE %I NOLOGIN', role.name);
                    END IF;
                END IF;
                EXIT;
            EXCEPTION
                WHEN insufficient_privilege THEN
                    RAISE EXCEPTION 'there is no role %, and % may not create it; as a superuser run: %',
                        role.name, current_user,
                        CASE WHEN EXISTS (SELECT FROM pg_roles WHERE rolname = role.former)
                             THEN format('ALTER ROLE %I RENAME TO %I', role.former, role.name)
                             ELSE format('CREATE ROLE %I NOLOGIN', role.name) END
                        USING ERRCODE = 'insufficient_privilege';
                WHEN duplicate_object OR unique_violation OR undefined_object OR internal_error THEN
                    IF pass = 5 THEN
                        RAISE;
                    END IF;
            END;
        END LOOP;

        IF shobj_description(role.name::regrole, 'pg_authid') IS DISTINCT FROM role.purpose THEN
            BEGIN
                EXECUTE format('COMMENT ON ROLE %I IS %L', role.name, role.purpose);
            EXCEPTION WHEN insufficient_privilege OR internal_error THEN
                NULL; -- a description is not worth a failure
            END;
        END IF;

        -- Step 2: an older program created the former name again, for this database or another one. Move its members
        -- and its grants. Drop it when no database uses it any more.
        SELECT r.oid INTO former_role FROM pg_roles r WHERE r.rolname = role.former;
        CONTINUE WHEN former_role IS NULL;
        SELECT count(*) FILTER (WHERE s.dbid = d.oid) > 0, count(*) FILTER (WHERE s.dbid NOT IN (0, d.oid)) > 0
          INTO used_here, used_elsewhere
          FROM pg_shdepend s, pg_database d
         WHERE s.refclassid = 'pg_authid'::regclass AND s.refobjid = former_role AND d.datname = current_database();
        CONTINUE WHEN used_elsewhere AND NOT used_here;
        BEGIN
            FOR item IN
                SELECT DISTINCT g.rolname AS granted, m.rolname AS member,
                       to_jsonb(a) - ARRAY['oid', 'roleid', 'member', 'grantor'] AS options
                  FROM pg_auth_members a
                  JOIN pg_roles g ON g.oid = a.roleid
                  JOIN pg_roles m ON m.oid = a.member
                 WHERE former_role IN (a.roleid, a.member)
            LOOP
                options := CASE WHEN item.options ? 'inherit_option' -- PostgreSQL 16
                                THEN format(' WITH ADMIN %s, INHERIT %s, SET %s', item.options ->> 'admin_option',
                                            item.options ->> 'inherit_option', item.options ->> 'set_option')
                                WHEN (item.options ->> 'admin_option')::boolean THEN ' WITH ADMIN OPTION'
                                ELSE '' END;
                EXECUTE format('GRANT %I TO %I%s',
                               CASE item.granted WHEN role.former THEN role.name ELSE item.granted END,
                               CASE item.member WHEN role.former THEN role.name ELSE item.member END, options);
            END LOOP;

            EXECUTE format('REASSIGN OWNED BY %I TO %I', role.former, role.name);
            FOR item IN
                SELECT o.object, a.privilege_type || o.part AS privilege, a.is_grantable
                  FROM (SELECT CASE c.relkind WHEN 'S' THEN 'SEQUENCE ' ELSE 'TABLE ' END || c.oid::regclass, '',
                               c.relacl
                          FROM pg_class c
                        UNION ALL
                        SELECT 'TABLE ' || t.attrelid::regclass, format(' (%I)', t.attname), t.attacl
                          FROM pg_attribute t
                        UNION ALL
                        SELECT 'ROUTINE ' || p.oid::regprocedure, '', p.proacl FROM pg_proc p
                        UNION ALL
                        SELECT 'TYPE ' || format_type(t.oid, NULL), '', t.typacl FROM pg_type t
                        UNION ALL
                        SELECT format('SCHEMA %I', n.nspname), '', n.nspacl FROM pg_namespace n
                        UNION ALL
                        SELECT format('DATABASE %I', d.datname), '', d.datacl FROM pg_database d
                         WHERE d.datname = current_database()
                       ) AS o (object, part, acl),
                       aclexplode(o.acl) AS a
                 WHERE a.grantee = former_role
            LOOP
                EXECUTE format('GRANT %s ON %s TO %I', item.privilege, item.object, role.name)
                        || CASE WHEN item.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END;
                EXECUTE format('REVOKE %s ON %s FROM %I CASCADE', item.privilege, item.object, role.former);
            END LOOP;

            IF EXISTS (SELECT FROM pg_shdepend s
                        WHERE s.refclassid = 'pg_authid'::regclass AND s.refobjid = former_role) THEN
                RAISE NOTICE 'role % stays for now: it is still used, see DROP OWNED; its successor is %',
                    role.former, role.name;
            ELSE
                EXECUTE format('DROP ROLE %I', role.former);
            END IF;
        EXCEPTION
            WHEN insufficient_privilege THEN
                -- Where this database never used it, only a superuser's tidying up is left.
                IF used_here THEN
                    RAISE EXCEPTION 'the roles % and % both exist, and % may not join them (%); migrate as a superuser',
                        role.former, role.name, current_user, SQLERRM
                        USING ERRCODE = 'insufficient_privilege';
                END IF;
            WHEN undefined_object OR dependent_objects_still_exist OR internal_error THEN
                RAISE NOTICE 'role % stays for now: %', role.former, SQLERRM;
        END;
    END LOOP;
END
$$;
