-- expand
-- Saved views: the query of a page of the console, under a name that its owner, or an operator, gave it.
CREATE TABLE saved_views (
    by_operator BIGINT NOT NULL,
    owner TEXT COLLATE "C" NOT NULL,
    page TEXT COLLATE "C" NOT NULL,
    name TEXT COLLATE "C" NOT NULL,
    query TEXT NOT NULL,
    shared BIGINT NOT NULL,
    revision BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    PRIMARY KEY (by_operator, owner, page, name)
);

-- What an act of an operator came to, as JSON, and the program that asked for it.
ALTER TABLE audit ADD COLUMN result TEXT;
ALTER TABLE audit ADD COLUMN user_agent TEXT;
