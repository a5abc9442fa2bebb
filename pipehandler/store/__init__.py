"""PostgreSQL: the only folder that imports psycopg and holds SQL."""
