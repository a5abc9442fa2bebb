-- The words of HTML, for the search of the inbox page. PostgreSQL parses no HTML, so this reads what most of it is:
-- text between tags. Every step takes time in proportion to the text: a pattern that looks for an end which may be
-- missing (<!--.*?-->) would begin again at each beginning.
--
-- For search_path, see 10_addresses.sql.

CREATE OR REPLACE FUNCTION pipehandler.html_words(html text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $$
    -- Of the references that HTML 4 names, the letters of ISO 8859-1 in their order, from U+00A0, and a few more.
    WITH named AS MATERIALIZED (
        SELECT jsonb_object_agg(l.name, 159 + l.n)
               || '{"amp": 38, "lt": 60, "gt": 62, "quot": 34, "apos": 39, "euro": 8364, "ndash": 8211, "rsquo": 8217}'
                   AS codes
          FROM string_to_table('nbsp iexcl cent pound curren yen brvbar sect uml copy ordf laquo not shy reg macr deg '
                   'plusmn sup2 sup3 acute micro para middot cedil sup1 ordm raquo frac14 frac12 frac34 iquest Agrave '
                   'Aacute Acirc Atilde Auml Aring AElig Ccedil Egrave Eacute Ecirc Euml Igrave Iacute Icirc Iuml ETH '
                   'Ntilde Ograve Oacute Ocirc Otilde Ouml times Oslash Ugrave Uacute Ucirc Uuml Yacute THORN szlig '
                   'agrave aacute acirc atilde auml aring aelig ccedil egrave eacute ecirc euml igrave iacute icirc '
                   'iuml eth ntilde ograve oacute ocirc otilde ouml divide oslash ugrave uacute ucirc uuml yacute '
                   'thorn yuml', ' ') WITH ORDINALITY AS l (name, n)),
    untagged AS (
        SELECT regexp_replace(string_agg(split_part(c.piece, '<!--', 1), '' ORDER BY c.n),
                              '<(?:style|script|title)\M[^<]*|<[a-z/!?][^<>]*>?', ' ', 'gi') AS text
          FROM string_to_table(html, '-->') WITH ORDINALITY AS c (piece, n)),
    pieces AS (
        SELECT p.n, p.piece, CASE WHEN p.n > 1 THEN split_part(left(p.piece, 10), ';', 1) END AS name
          FROM untagged, string_to_table(untagged.text, '&') WITH ORDINALITY AS p (piece, n)),
    decoded AS (
        SELECT p.n, p.piece, p.name,
               CASE WHEN left(p.name, 1) <> '#' THEN (named.codes ->> p.name)::integer
                    WHEN p.name ~ '^#[0-9]{1,7}$' THEN substr(p.name, 2)::integer
                    WHEN p.name ~* '^#x[0-9a-f]{1,6}$'
                    THEN ('x' || lpad(substr(p.name, 3), 8, '0'))::bit(32)::integer END AS code
          FROM named, pieces AS p)
    SELECT regexp_replace(translate(
               string_agg(CASE WHEN d.n = 1 THEN d.piece
                               WHEN d.code BETWEEN 32 AND 55295 OR d.code BETWEEN 57344 AND 1114111
                               THEN chr(d.code) || substr(d.piece, length(d.name) + 2)
                               ELSE '&' || d.piece END, '' ORDER BY d.n),
               U&'\00AD\200B', ''), '[\s\u00A0]+', ' ', 'g')
      FROM decoded AS d
$$;
COMMENT ON FUNCTION pipehandler.html_words(text) IS
'The words of HTML, for a search: without tags, comments, styles, scripts and the title, with white space folded and the
letters of ISO 8859-1 that are written as references (&uuml; &#252;). Not what a browser shows: what a style hides is in
it, and so is the rest of an attribute that has < or > in it. Each tag ends a word.';

CREATE OR REPLACE FUNCTION pipehandler.html_has(html text, pattern text) RETURNS boolean
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    beginning CONSTANT text := left(html, 100000);
    -- Of ASCII letters, which are not written as references: most HTML does not have them, and that costs a tenth.
    -- The cases of another letter are in brackets, and may be in ASCII.
    longest   CONSTANT text := (SELECT r.found[1]
                                  FROM regexp_matches(regexp_replace(pattern, '\[[^]]*\]', '[]', 'g'),
                                                      '[a-z0-9]+', 'gi') AS r (found)
                                 ORDER BY length(r.found[1]) DESC
                                 LIMIT 1);
BEGIN
    RETURN (longest IS NULL
            OR strpos(replace(replace(lower(beginning COLLATE "C"), U&'\00AD', ''), '&shy;', ''),
                      lower(longest COLLATE "C")) > 0)
           AND pipehandler.html_words(beginning) COLLATE "C" ~* pattern;
END
$$;
COMMENT ON FUNCTION pipehandler.html_has(text, text) IS
'For pipehandler.wanted_of: whether the words of the first 100,000 characters of HTML match a pattern for ~*.';
