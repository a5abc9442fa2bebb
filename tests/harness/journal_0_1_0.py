"""The journal as release 0.1.0 created and wrote it: its SQL, frozen, so that a test fails when the two releases no
longer agree."""

SCHEMA = """
PRAGMA journal_mode = WAL;
CREATE TABLE attempt (
    id INTEGER PRIMARY KEY AUTOINCREMENT, began REAL NOT NULL, pid INTEGER NOT NULL, ingress TEXT NOT NULL, way TEXT NOT NULL,
    queue_id TEXT, status INTEGER, action TEXT, code TEXT, sqlstate TEXT, size INTEGER, message TEXT, reason TEXT,
    start REAL, read REAL, parse REAL, store REAL
);
CREATE INDEX attempt_began ON attempt (began);
CREATE TABLE total (
    ingress TEXT, way TEXT, status INTEGER, action TEXT, attempts INTEGER NOT NULL, octets INTEGER NOT NULL, last REAL NOT NULL,
    PRIMARY KEY (ingress, way, status, action)
) WITHOUT ROWID;
CREATE TABLE duration (
    way TEXT, phase TEXT, bound REAL, attempts INTEGER NOT NULL, seconds REAL NOT NULL, PRIMARY KEY (way, phase, bound)
) WITHOUT ROWID;
CREATE TABLE told (fault TEXT PRIMARY KEY, at REAL NOT NULL) WITHOUT ROWID;
"""

BEGIN = "INSERT INTO attempt (began, pid, ingress, way, queue_id) VALUES (?, ?, ?, ?, ?)"
END = """
UPDATE attempt SET status = ?, action = ?, code = ?, sqlstate = ?, size = ?, message = ?, reason = ?,
       start = ?, read = ?, parse = ?, store = ?
 WHERE id = ?
"""
LOST = "SELECT max(id) FROM attempt WHERE pid = ? AND queue_id IS ? AND status IS NULL"
TOLD = "INSERT INTO told VALUES (?, ?) ON CONFLICT DO UPDATE SET at = excluded.at WHERE at <= ? OR at > ?"
ADD_TOTAL = """
INSERT INTO total VALUES (?, ?, ?, ?, ?, ?, ?)
ON CONFLICT DO UPDATE SET attempts = attempts + excluded.attempts, octets = octets + excluded.octets, last = max(last, excluded.last)
"""
ADD_DURATION = """
INSERT INTO duration VALUES (?, ?, ?, 1, ?)
ON CONFLICT DO UPDATE SET attempts = attempts + 1, seconds = seconds + excluded.seconds
"""
OLD = "SELECT max(coalesce((SELECT max(id) FROM attempt WHERE began < ?), 0), (SELECT max(id) FROM attempt) - ?)"
KILLED = """
SELECT ingress, way, -1, ?, count(*), 0, max(began) FROM attempt WHERE status IS NULL AND id <= ? GROUP BY ingress, way
"""
TRIM = "DELETE FROM attempt WHERE id <= ?"
READ_TOTALS = "SELECT * FROM total ORDER BY 1, 2, 3, 4"
READ_DURATIONS = "SELECT * FROM duration ORDER BY 1, 2, 3"
READ_RECORDS = "SELECT * FROM attempt WHERE began > ? ORDER BY began, id"
