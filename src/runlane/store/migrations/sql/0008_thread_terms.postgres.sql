-- Which threads have which text in their metadata, in the order of their last change, to the minute: what searches by
-- metadata are answered from. Threads of stateless runs are not listed, and so not in it. The trigger keeps it equal to the
-- threads' rows, whoever writes them.
CREATE TABLE thread_terms (
    term TEXT COLLATE "C" NOT NULL,
    minute BIGINT NOT NULL,
    thread_id TEXT COLLATE "C" NOT NULL,
    PRIMARY KEY (term, minute, thread_id)
);
-- The type jsonb takes no NUL, not even an escaped one; see contains_in_postgres.
CREATE FUNCTION thread_terms_of(metadata TEXT) RETURNS SETOF TEXT LANGUAGE sql IMMUTABLE AS '
    SELECT key || ''='' || (value #>> ''{}'')
    FROM jsonb_each(CAST(replace(metadata, ''\u0000'', ''\ufffd'') AS jsonb))
    WHERE jsonb_typeof(value) = ''string'' AND length(key) <= 64 AND length(value #>> ''{}'') <= 256';
CREATE FUNCTION thread_terms_follow() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS '
BEGIN
    IF TG_OP <> ''INSERT'' THEN
        DELETE FROM thread_terms WHERE minute = OLD.updated_at / 60000000 AND thread_id = OLD.thread_id
          AND term IN (SELECT thread_terms_of(OLD.metadata));
    END IF;
    IF TG_OP <> ''DELETE'' AND NEW.temporary = 0 THEN
        INSERT INTO thread_terms (term, minute, thread_id)
          SELECT thread_terms_of(NEW.metadata), NEW.updated_at / 60000000, NEW.thread_id ON CONFLICT DO NOTHING;
    END IF;
    RETURN NULL;
END';
CREATE OR REPLACE TRIGGER thread_terms_follow AFTER INSERT OR DELETE ON threads
    FOR EACH ROW EXECUTE FUNCTION thread_terms_follow();
CREATE OR REPLACE TRIGGER thread_terms_follow_changes AFTER UPDATE OF metadata, updated_at ON threads FOR EACH ROW
    WHEN (OLD.metadata <> NEW.metadata OR OLD.updated_at / 60000000 <> NEW.updated_at / 60000000)
    EXECUTE FUNCTION thread_terms_follow();
INSERT INTO thread_terms (term, minute, thread_id)
  SELECT thread_terms_of(metadata), updated_at / 60000000, thread_id FROM threads WHERE temporary = 0
  ON CONFLICT DO NOTHING;
