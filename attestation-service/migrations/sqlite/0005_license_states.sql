-- What may become of a licence besides its issue and its end. `state` is derived from these and the clock.
ALTER TABLE license ADD COLUMN activated_at INTEGER;
ALTER TABLE license ADD COLUMN suspended_at INTEGER;
-- After a revocation: until when what runs already may go on.
ALTER TABLE license ADD COLUMN drain_until INTEGER;
-- Counts transfers to other customers: files from before open nothing.
ALTER TABLE license ADD COLUMN generation INTEGER NOT NULL DEFAULT 0;

UPDATE license SET activated_at = (SELECT min(started_at) FROM lease WHERE license_id = license.id);
