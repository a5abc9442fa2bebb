-- By which rules the fingerprint of a delivery was made. The rows that exist have those of version 1; what a program of
-- the previous release stores from now on has them as well. A constant default rewrites no row.

-- squawk-ignore prefer-bigint-over-smallint
ALTER TABLE pipehandler.delivery ADD COLUMN fingerprint_version smallint NOT NULL DEFAULT 1;
