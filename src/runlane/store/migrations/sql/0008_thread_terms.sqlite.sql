-- Which threads have which text in their metadata, in the order of their last change, to the minute: what searches by
-- metadata are answered from. Threads of stateless runs are not listed, and so not in it. The triggers keep it equal to the
-- threads' rows, whoever writes them.
CREATE TABLE thread_terms (
    term TEXT NOT NULL,
    minute INTEGER NOT NULL,
    thread_id TEXT NOT NULL,
    PRIMARY KEY (term, minute, thread_id)
) WITHOUT ROWID;
CREATE TRIGGER thread_terms_added AFTER INSERT ON threads WHEN NEW.temporary = 0 BEGIN
    INSERT OR IGNORE INTO thread_terms (term, minute, thread_id)
      SELECT key || '=' || value, NEW.updated_at / 60000000, NEW.thread_id FROM json_each(NEW.metadata)
      WHERE type = 'text' AND length(key) <= 64 AND length(value) <= 256;
END;
CREATE TRIGGER thread_terms_changed AFTER UPDATE OF metadata, updated_at ON threads
WHEN NEW.temporary = 0
  AND (OLD.metadata <> NEW.metadata OR OLD.updated_at / 60000000 <> NEW.updated_at / 60000000) BEGIN
    DELETE FROM thread_terms WHERE minute = OLD.updated_at / 60000000 AND thread_id = OLD.thread_id
      AND term IN (SELECT key || '=' || value FROM json_each(OLD.metadata) WHERE type = 'text');
    INSERT OR IGNORE INTO thread_terms (term, minute, thread_id)
      SELECT key || '=' || value, NEW.updated_at / 60000000, NEW.thread_id FROM json_each(NEW.metadata)
      WHERE type = 'text' AND length(key) <= 64 AND length(value) <= 256;
END;
CREATE TRIGGER thread_terms_removed AFTER DELETE ON threads BEGIN
    DELETE FROM thread_terms WHERE minute = OLD.updated_at / 60000000 AND thread_id = OLD.thread_id
      AND term IN (SELECT key || '=' || value FROM json_each(OLD.metadata) WHERE type = 'text');
END;
INSERT OR IGNORE INTO thread_terms (term, minute, thread_id)
  SELECT key || '=' || value, threads.updated_at / 60000000, threads.thread_id FROM threads, json_each(threads.metadata)
  WHERE threads.temporary = 0 AND json_each.type = 'text' AND length(key) <= 64 AND length(value) <= 256;
