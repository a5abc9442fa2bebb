-- A session keeps the plans of its statements. Those that were made while delivery was small read all of it, and would go on
-- doing so while it grows, for as long as a resident worker keeps its connection. So a row is always found by its index.
ALTER FUNCTION pipehandler.ingest SET enable_seqscan = off;
