CREATE TABLE public.alembic_version (
    version_num character varying(32) NOT NULL
);
CREATE TABLE public.assistant (
    assistant_id text DEFAULT (gen_random_uuid())::text NOT NULL,
    name text NOT NULL,
    description text,
    graph_id text NOT NULL,
    config jsonb DEFAULT '{}'::jsonb NOT NULL,
    user_id text NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    updated_at timestamp with time zone DEFAULT now() NOT NULL,
    context jsonb DEFAULT '{}'::jsonb NOT NULL,
    version integer DEFAULT 1 NOT NULL,
    metadata jsonb DEFAULT '{}'::jsonb NOT NULL
);
CREATE TABLE public.assistant_versions (
    assistant_id text NOT NULL,
    version integer NOT NULL,
    graph_id text NOT NULL,
    config jsonb,
    context jsonb,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    metadata jsonb DEFAULT '{}'::jsonb NOT NULL,
    name text,
    description text
);
CREATE TABLE public.checkpoint_blobs (
    thread_id text NOT NULL,
    checkpoint_ns text DEFAULT ''::text NOT NULL,
    channel text NOT NULL,
    version text NOT NULL,
    type text NOT NULL,
    blob bytea
);
CREATE TABLE public.checkpoint_migrations (
    v integer NOT NULL
);
CREATE TABLE public.checkpoint_writes (
    thread_id text NOT NULL,
    checkpoint_ns text DEFAULT ''::text NOT NULL,
    checkpoint_id text NOT NULL,
    task_id text NOT NULL,
    idx integer NOT NULL,
    channel text NOT NULL,
    type text,
    blob bytea NOT NULL,
    task_path text DEFAULT ''::text NOT NULL
);
CREATE TABLE public.checkpoints (
    thread_id text NOT NULL,
    checkpoint_ns text DEFAULT ''::text NOT NULL,
    checkpoint_id text NOT NULL,
    parent_checkpoint_id text,
    type text,
    checkpoint jsonb NOT NULL,
    metadata jsonb DEFAULT '{}'::jsonb NOT NULL
);
CREATE TABLE public.crons (
    cron_id text DEFAULT (gen_random_uuid())::text NOT NULL,
    assistant_id text NOT NULL,
    thread_id text,
    user_id text NOT NULL,
    schedule text NOT NULL,
    payload jsonb DEFAULT '{}'::jsonb NOT NULL,
    metadata jsonb DEFAULT '{}'::jsonb NOT NULL,
    on_run_completed text,
    enabled boolean DEFAULT true NOT NULL,
    end_time timestamp with time zone,
    next_run_date timestamp with time zone,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    updated_at timestamp with time zone DEFAULT now() NOT NULL,
    claimed_until timestamp with time zone
);
CREATE TABLE public.runs (
    run_id text DEFAULT (gen_random_uuid())::text NOT NULL,
    thread_id text NOT NULL,
    assistant_id text,
    status text DEFAULT 'pending'::text NOT NULL,
    input jsonb DEFAULT '{}'::jsonb,
    config jsonb,
    output jsonb,
    error_message text,
    user_id text NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    updated_at timestamp with time zone DEFAULT now() NOT NULL,
    context jsonb,
    execution_params jsonb,
    claimed_by text,
    lease_expires_at timestamp with time zone
);
CREATE TABLE public.store (
    prefix text NOT NULL,
    key text NOT NULL,
    value jsonb NOT NULL,
    created_at timestamp with time zone DEFAULT CURRENT_TIMESTAMP,
    updated_at timestamp with time zone DEFAULT CURRENT_TIMESTAMP,
    expires_at timestamp with time zone,
    ttl_minutes integer
);
CREATE TABLE public.store_migrations (
    v integer NOT NULL
);
CREATE TABLE public.thread (
    thread_id text NOT NULL,
    status text DEFAULT 'idle'::text NOT NULL,
    metadata_json jsonb DEFAULT '{}'::jsonb NOT NULL,
    user_id text NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    updated_at timestamp with time zone DEFAULT now() NOT NULL
);
CREATE TABLE public.thread_ttl (
    thread_id text NOT NULL,
    strategy text DEFAULT 'delete'::text NOT NULL,
    ttl_minutes double precision NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    expires_at timestamp with time zone NOT NULL
);
INSERT INTO public.alembic_version (version_num) VALUES ('a3f7c1d9e2b4');
INSERT INTO public.assistant (assistant_id, name, description, graph_id, config, user_id, created_at, updated_at, context, version, metadata) VALUES ('fe096781-5601-53d2-b2f6-0d3403f7e9ca', 'agent', 'Default assistant for graph ''agent''', 'agent', '{}', 'system', '2026-11-29 01:27:27.899174+00', '2026-11-29 01:27:27.899174+00', '{}', 1, '{"created_by": "system"}');
INSERT INTO public.assistant (assistant_id, name, description, graph_id, config, user_id, created_at, updated_at, context, version, metadata) VALUES ('7c5865b5-0e10-5c5f-8442-9225c0215d23', 'asker', 'Default assistant for graph ''asker''', 'asker', '{}', 'system', '2026-11-29 01:27:27.899174+00', '2026-11-29 01:27:27.899174+00', '{}', 1, '{"created_by": "system"}');
INSERT INTO public.assistant (assistant_id, name, description, graph_id, config, user_id, created_at, updated_at, context, version, metadata) VALUES ('626f2c02-a1c0-429f-a73d-f75ad2ded5db', 'Tides 2', 'About tides', 'agent', '{"configurable": {"k": 2}}', 'anonymous', '2026-11-29 01:27:52.330852+00', '2026-11-29 01:27:52.389313+00', '{"k": 2}', 2, '{"team": "sea"}');
INSERT INTO public.assistant_versions (assistant_id, version, graph_id, config, context, created_at, metadata, name, description) VALUES ('fe096781-5601-53d2-b2f6-0d3403f7e9ca', 1, 'agent', 'null', 'null', '2026-11-29 01:27:27.899174+00', '{"created_by": "system"}', 'agent', 'Default assistant for graph ''agent''');
INSERT INTO public.assistant_versions (assistant_id, version, graph_id, config, context, created_at, metadata, name, description) VALUES ('7c5865b5-0e10-5c5f-8442-9225c0215d23', 1, 'asker', 'null', 'null', '2026-11-29 01:27:27.899174+00', '{"created_by": "system"}', 'asker', 'Default assistant for graph ''asker''');
INSERT INTO public.assistant_versions (assistant_id, version, graph_id, config, context, created_at, metadata, name, description) VALUES ('626f2c02-a1c0-429f-a73d-f75ad2ded5db', 1, 'agent', '{"configurable": {"k": 1}}', '{"k": 1}', '2026-11-29 01:27:52.346084+00', '{"team": "sea"}', 'Tides', 'About tides');
INSERT INTO public.assistant_versions (assistant_id, version, graph_id, config, context, created_at, metadata, name, description) VALUES ('626f2c02-a1c0-429f-a73d-f75ad2ded5db', 2, 'agent', '{"configurable": {"k": 2}}', '{"k": 2}', '2026-11-29 01:27:52.389313+00', '{"team": "sea"}', 'Tides 2', 'About tides');
INSERT INTO public.checkpoint_blobs (thread_id, checkpoint_ns, channel, version, type, blob) VALUES ('aad1af15-2c2f-4e0b-9d0b-fc97b9455035', '', '__start__', '00000000000000000000000000000001.0.7643667828252652', 'msgpack', '\x81a16e05');
INSERT INTO public.checkpoint_blobs (thread_id, checkpoint_ns, channel, version, type, blob) VALUES ('aad1af15-2c2f-4e0b-9d0b-fc97b9455035', '', '__start__', '00000000000000000000000000000004.0.20320860401471696', 'msgpack', '\x81a16e05');
INSERT INTO public.checkpoint_blobs (thread_id, checkpoint_ns, channel, version, type, blob) VALUES ('2da1010e-ba1e-4045-a9e6-0b021b43eb6c', '', '__start__', '00000000000000000000000000000001.0.9433629962918961', 'msgpack', '\x81a16e05');
INSERT INTO public.checkpoint_blobs (thread_id, checkpoint_ns, channel, version, type, blob) VALUES ('aad1af15-2c2f-4e0b-9d0b-fc97b9455035', '', '__start__', '00000000000000000000000000000007.0.7420549212284344', 'msgpack', '\x81a16e01');
INSERT INTO public.checkpoint_migrations (v) VALUES (0);
INSERT INTO public.checkpoint_migrations (v) VALUES (1);
INSERT INTO public.checkpoint_migrations (v) VALUES (2);
INSERT INTO public.checkpoint_migrations (v) VALUES (3);
INSERT INTO public.checkpoint_migrations (v) VALUES (4);
INSERT INTO public.checkpoint_migrations (v) VALUES (5);
INSERT INTO public.checkpoint_migrations (v) VALUES (6);
INSERT INTO public.checkpoint_migrations (v) VALUES (7);
INSERT INTO public.checkpoint_migrations (v) VALUES (8);
INSERT INTO public.checkpoint_migrations (v) VALUES (9);
INSERT INTO public.checkpoint_writes (thread_id, checkpoint_ns, checkpoint_id, task_id, idx, channel, type, blob, task_path) VALUES ('aad1af15-2c2f-4e0b-9d0b-fc97b9455035', '', '1f1eb941-8cf9-668f-bfff-b90518dc5778', '5e1694b4-8322-2d41-2963-92517f288de7', 0, 'n', 'msgpack', '\x05', '~__pregel_pull, __start__');
INSERT INTO public.checkpoint_writes (thread_id, checkpoint_ns, checkpoint_id, task_id, idx, channel, type, blob, task_path) VALUES ('aad1af15-2c2f-4e0b-9d0b-fc97b9455035', '', '1f1eb941-8cf9-668f-bfff-b90518dc5778', '5e1694b4-8322-2d41-2963-92517f288de7', 1, 'branch:to:one', 'null', '\x', '~__pregel_pull, __start__');
INSERT INTO public.checkpoint_writes (thread_id, checkpoint_ns, checkpoint_id, task_id, idx, channel, type, blob, task_path) VALUES ('aad1af15-2c2f-4e0b-9d0b-fc97b9455035', '', '1f1eb941-8d1c-6cbb-8000-19f5a305da08', 'b5794241-be3a-819c-dee5-2376da509eaf', 0, 'n', 'msgpack', '\x06', '~__pregel_pull, one');
INSERT INTO public.checkpoint_writes (thread_id, checkpoint_ns, checkpoint_id, task_id, idx, channel, type, blob, task_path) VALUES ('aad1af15-2c2f-4e0b-9d0b-fc97b9455035', '', '1f1eb941-94c1-69dd-8002-d05ff1a19c2b', '8b726a6e-bcb6-d76a-5dea-9ebad372ec2f', 0, 'n', 'msgpack', '\x05', '~__pregel_pull, __start__');
INSERT INTO public.checkpoint_writes (thread_id, checkpoint_ns, checkpoint_id, task_id, idx, channel, type, blob, task_path) VALUES ('aad1af15-2c2f-4e0b-9d0b-fc97b9455035', '', '1f1eb941-94c1-69dd-8002-d05ff1a19c2b', '8b726a6e-bcb6-d76a-5dea-9ebad372ec2f', 1, 'branch:to:one', 'null', '\x', '~__pregel_pull, __start__');
INSERT INTO public.checkpoint_writes (thread_id, checkpoint_ns, checkpoint_id, task_id, idx, channel, type, blob, task_path) VALUES ('aad1af15-2c2f-4e0b-9d0b-fc97b9455035', '', '1f1eb941-94c3-6851-8003-04b573a31445', '2e225a15-46e8-0daa-63f0-9f54de793c3e', 0, 'n', 'msgpack', '\x06', '~__pregel_pull, one');
INSERT INTO public.checkpoint_writes (thread_id, checkpoint_ns, checkpoint_id, task_id, idx, channel, type, blob, task_path) VALUES ('2da1010e-ba1e-4045-a9e6-0b021b43eb6c', '', '1f1eb941-9629-64c0-bfff-4c3b08cae596', '3841568a-3ed3-1f27-3e2f-55f4a9185683', 0, 'n', 'msgpack', '\x05', '~__pregel_pull, __start__');
INSERT INTO public.checkpoint_writes (thread_id, checkpoint_ns, checkpoint_id, task_id, idx, channel, type, blob, task_path) VALUES ('2da1010e-ba1e-4045-a9e6-0b021b43eb6c', '', '1f1eb941-9629-64c0-bfff-4c3b08cae596', '3841568a-3ed3-1f27-3e2f-55f4a9185683', 1, 'branch:to:ask', 'null', '\x', '~__pregel_pull, __start__');
INSERT INTO public.checkpoint_writes (thread_id, checkpoint_ns, checkpoint_id, task_id, idx, channel, type, blob, task_path) VALUES ('2da1010e-ba1e-4045-a9e6-0b021b43eb6c', '', '1f1eb941-9647-6f9b-8000-ee2a4ce9077b', '8a85fcb2-9563-c2fc-aaea-83123f865f62', -3, '__interrupt__', 'msgpack', '\x91c7690293af6c616e6767726170682e7479706573a9496e7465727275707483a576616c756581a87175657374696f6ea6676f206f6e3fa26964d9206632326136346233633165666231306639653636663235623432653537396630af726573706f6e73655f736368656d61c0', '~__pregel_pull, ask');
INSERT INTO public.checkpoint_writes (thread_id, checkpoint_ns, checkpoint_id, task_id, idx, channel, type, blob, task_path) VALUES ('aad1af15-2c2f-4e0b-9d0b-fc97b9455035', '', '1f1eb941-9a12-6fd2-8005-d92e222cfb93', '0ee7d349-db68-c89c-ad41-7c16f265cdb8', 0, 'n', 'msgpack', '\x01', '~__pregel_pull, __start__');
INSERT INTO public.checkpoint_writes (thread_id, checkpoint_ns, checkpoint_id, task_id, idx, channel, type, blob, task_path) VALUES ('aad1af15-2c2f-4e0b-9d0b-fc97b9455035', '', '1f1eb941-9a12-6fd2-8005-d92e222cfb93', '0ee7d349-db68-c89c-ad41-7c16f265cdb8', 1, 'branch:to:one', 'null', '\x', '~__pregel_pull, __start__');
INSERT INTO public.checkpoint_writes (thread_id, checkpoint_ns, checkpoint_id, task_id, idx, channel, type, blob, task_path) VALUES ('aad1af15-2c2f-4e0b-9d0b-fc97b9455035', '', '1f1eb941-9a4e-6ef7-8006-50f47fec1430', '1791f2d9-9400-4de9-3885-cdc97252a860', 0, 'n', 'msgpack', '\x02', '~__pregel_pull, one');
INSERT INTO public.checkpoints (thread_id, checkpoint_ns, checkpoint_id, parent_checkpoint_id, type, checkpoint, metadata) VALUES ('aad1af15-2c2f-4e0b-9d0b-fc97b9455035', '', '1f1eb941-8cf9-668f-bfff-b90518dc5778', NULL, NULL, '{"v": 4, "id": "1f1eb941-8cf9-668f-bfff-b90518dc5778", "ts": "2026-11-29T01:27:52.914076+00:00", "versions_seen": {"__input__": {}}, "channel_values": {}, "channel_versions": {"__start__": "00000000000000000000000000000001.0.7643667828252652"}, "updated_channels": ["__start__"]}', '{"k": 2, "step": -1, "run_id": "1b1995d0-0aaa-4170-b395-2d8b662ae7db", "source": "input", "parents": {}, "user_id": "anonymous", "user_display_name": "Anonymous User"}');
INSERT INTO public.checkpoints (thread_id, checkpoint_ns, checkpoint_id, parent_checkpoint_id, type, checkpoint, metadata) VALUES ('aad1af15-2c2f-4e0b-9d0b-fc97b9455035', '', '1f1eb941-8d1c-6cbb-8000-19f5a305da08', '1f1eb941-8cf9-668f-bfff-b90518dc5778', NULL, '{"v": 4, "id": "1f1eb941-8d1c-6cbb-8000-19f5a305da08", "ts": "2026-11-29T01:27:52.928558+00:00", "versions_seen": {"__input__": {}, "__start__": {"__start__": "00000000000000000000000000000001.0.7643667828252652"}}, "channel_values": {"n": 5, "branch:to:one": null}, "channel_versions": {"n": "00000000000000000000000000000002.0.4241668903236646", "__start__": "00000000000000000000000000000002.0.4241668903236646", "branch:to:one": "00000000000000000000000000000002.0.4241668903236646"}, "updated_channels": ["branch:to:one", "n"]}', '{"k": 2, "step": 0, "run_id": "1b1995d0-0aaa-4170-b395-2d8b662ae7db", "source": "loop", "parents": {}, "user_id": "anonymous", "user_display_name": "Anonymous User"}');
INSERT INTO public.checkpoints (thread_id, checkpoint_ns, checkpoint_id, parent_checkpoint_id, type, checkpoint, metadata) VALUES ('aad1af15-2c2f-4e0b-9d0b-fc97b9455035', '', '1f1eb941-8d2a-6b95-8001-1e44f968c5c8', '1f1eb941-8d1c-6cbb-8000-19f5a305da08', NULL, '{"v": 4, "id": "1f1eb941-8d2a-6b95-8001-1e44f968c5c8", "ts": "2026-11-29T01:27:52.934274+00:00", "versions_seen": {"one": {"branch:to:one": "00000000000000000000000000000002.0.4241668903236646"}, "__input__": {}, "__start__": {"__start__": "00000000000000000000000000000001.0.7643667828252652"}}, "channel_values": {"n": 6}, "channel_versions": {"n": "00000000000000000000000000000003.0.9918859868161864", "__start__": "00000000000000000000000000000002.0.4241668903236646", "branch:to:one": "00000000000000000000000000000003.0.9918859868161864"}, "updated_channels": ["n"]}', '{"k": 2, "step": 1, "run_id": "1b1995d0-0aaa-4170-b395-2d8b662ae7db", "source": "loop", "parents": {}, "user_id": "anonymous", "user_display_name": "Anonymous User"}');
INSERT INTO public.checkpoints (thread_id, checkpoint_ns, checkpoint_id, parent_checkpoint_id, type, checkpoint, metadata) VALUES ('aad1af15-2c2f-4e0b-9d0b-fc97b9455035', '', '1f1eb941-94c1-69dd-8002-d05ff1a19c2b', '1f1eb941-8d2a-6b95-8001-1e44f968c5c8', NULL, '{"v": 4, "id": "1f1eb941-94c1-69dd-8002-d05ff1a19c2b", "ts": "2026-11-29T01:27:53.730068+00:00", "versions_seen": {"one": {"branch:to:one": "00000000000000000000000000000002.0.4241668903236646"}, "__input__": {}, "__start__": {"__start__": "00000000000000000000000000000001.0.7643667828252652"}}, "channel_values": {"n": 6}, "channel_versions": {"n": "00000000000000000000000000000003.0.9918859868161864", "__start__": "00000000000000000000000000000004.0.20320860401471696", "branch:to:one": "00000000000000000000000000000003.0.9918859868161864"}, "updated_channels": ["__start__"]}', '{"k": 2, "step": 2, "run_id": "56cc096e-4616-4bfc-aab3-4cb2397017ea", "source": "input", "parents": {}, "user_id": "anonymous", "user_display_name": "Anonymous User"}');
INSERT INTO public.checkpoints (thread_id, checkpoint_ns, checkpoint_id, parent_checkpoint_id, type, checkpoint, metadata) VALUES ('aad1af15-2c2f-4e0b-9d0b-fc97b9455035', '', '1f1eb941-94c3-6851-8003-04b573a31445', '1f1eb941-94c1-69dd-8002-d05ff1a19c2b', NULL, '{"v": 4, "id": "1f1eb941-94c3-6851-8003-04b573a31445", "ts": "2026-11-29T01:27:53.730863+00:00", "versions_seen": {"one": {"branch:to:one": "00000000000000000000000000000002.0.4241668903236646"}, "__input__": {}, "__start__": {"__start__": "00000000000000000000000000000004.0.20320860401471696"}}, "channel_values": {"n": 5, "branch:to:one": null}, "channel_versions": {"n": "00000000000000000000000000000005.0.6482942244329014", "__start__": "00000000000000000000000000000005.0.6482942244329014", "branch:to:one": "00000000000000000000000000000005.0.6482942244329014"}, "updated_channels": ["branch:to:one", "n"]}', '{"k": 2, "step": 3, "run_id": "56cc096e-4616-4bfc-aab3-4cb2397017ea", "source": "loop", "parents": {}, "user_id": "anonymous", "user_display_name": "Anonymous User"}');
INSERT INTO public.checkpoints (thread_id, checkpoint_ns, checkpoint_id, parent_checkpoint_id, type, checkpoint, metadata) VALUES ('aad1af15-2c2f-4e0b-9d0b-fc97b9455035', '', '1f1eb941-94c5-624e-8004-7b825bbe9806', '1f1eb941-94c3-6851-8003-04b573a31445', NULL, '{"v": 4, "id": "1f1eb941-94c5-624e-8004-7b825bbe9806", "ts": "2026-11-29T01:27:53.731535+00:00", "versions_seen": {"one": {"branch:to:one": "00000000000000000000000000000005.0.6482942244329014"}, "__input__": {}, "__start__": {"__start__": "00000000000000000000000000000004.0.20320860401471696"}}, "channel_values": {"n": 6}, "channel_versions": {"n": "00000000000000000000000000000006.0.46605445976265847", "__start__": "00000000000000000000000000000005.0.6482942244329014", "branch:to:one": "00000000000000000000000000000006.0.46605445976265847"}, "updated_channels": ["n"]}', '{"k": 2, "step": 4, "run_id": "56cc096e-4616-4bfc-aab3-4cb2397017ea", "source": "loop", "parents": {}, "user_id": "anonymous", "user_display_name": "Anonymous User"}');
INSERT INTO public.checkpoints (thread_id, checkpoint_ns, checkpoint_id, parent_checkpoint_id, type, checkpoint, metadata) VALUES ('2da1010e-ba1e-4045-a9e6-0b021b43eb6c', '', '1f1eb941-9629-64c0-bfff-4c3b08cae596', NULL, NULL, '{"v": 4, "id": "1f1eb941-9629-64c0-bfff-4c3b08cae596", "ts": "2026-11-29T01:27:53.877412+00:00", "versions_seen": {"__input__": {}}, "channel_values": {}, "channel_versions": {"__start__": "00000000000000000000000000000001.0.9433629962918961"}, "updated_channels": ["__start__"]}', '{"step": -1, "run_id": "c11c7ac4-f71b-4f9d-9afd-60601d06d7de", "source": "input", "parents": {}, "user_id": "anonymous", "user_display_name": "Anonymous User"}');
INSERT INTO public.checkpoints (thread_id, checkpoint_ns, checkpoint_id, parent_checkpoint_id, type, checkpoint, metadata) VALUES ('2da1010e-ba1e-4045-a9e6-0b021b43eb6c', '', '1f1eb941-9647-6f9b-8000-ee2a4ce9077b', '1f1eb941-9629-64c0-bfff-4c3b08cae596', NULL, '{"v": 4, "id": "1f1eb941-9647-6f9b-8000-ee2a4ce9077b", "ts": "2026-11-29T01:27:53.889963+00:00", "versions_seen": {"__input__": {}, "__start__": {"__start__": "00000000000000000000000000000001.0.9433629962918961"}}, "channel_values": {"n": 5, "branch:to:ask": null}, "channel_versions": {"n": "00000000000000000000000000000002.0.36057738150369845", "__start__": "00000000000000000000000000000002.0.36057738150369845", "branch:to:ask": "00000000000000000000000000000002.0.36057738150369845"}, "updated_channels": ["branch:to:ask", "n"]}', '{"step": 0, "run_id": "c11c7ac4-f71b-4f9d-9afd-60601d06d7de", "source": "loop", "parents": {}, "user_id": "anonymous", "user_display_name": "Anonymous User"}');
INSERT INTO public.checkpoints (thread_id, checkpoint_ns, checkpoint_id, parent_checkpoint_id, type, checkpoint, metadata) VALUES ('aad1af15-2c2f-4e0b-9d0b-fc97b9455035', '', '1f1eb941-9a4e-6ef7-8006-50f47fec1430', '1f1eb941-9a12-6fd2-8005-d92e222cfb93', NULL, '{"v": 4, "id": "1f1eb941-9a4e-6ef7-8006-50f47fec1430", "ts": "2026-11-29T01:27:54.312240+00:00", "versions_seen": {"one": {"branch:to:one": "00000000000000000000000000000005.0.6482942244329014"}, "__input__": {}, "__start__": {"__start__": "00000000000000000000000000000007.0.7420549212284344"}}, "channel_values": {"n": 1, "branch:to:one": null}, "channel_versions": {"n": "00000000000000000000000000000008.0.9576154323445037", "__start__": "00000000000000000000000000000008.0.9576154323445037", "branch:to:one": "00000000000000000000000000000008.0.9576154323445037"}, "updated_channels": ["branch:to:one", "n"]}', '{"k": 2, "step": 6, "run_id": "06ef6315-8503-4811-a1cd-73ac1721ee71", "source": "loop", "parents": {}, "user_id": "anonymous", "user_display_name": "Anonymous User"}');
INSERT INTO public.checkpoints (thread_id, checkpoint_ns, checkpoint_id, parent_checkpoint_id, type, checkpoint, metadata) VALUES ('aad1af15-2c2f-4e0b-9d0b-fc97b9455035', '', '1f1eb941-9a12-6fd2-8005-d92e222cfb93', '1f1eb941-94c5-624e-8004-7b825bbe9806', NULL, '{"v": 4, "id": "1f1eb941-9a12-6fd2-8005-d92e222cfb93", "ts": "2026-11-29T01:27:54.287685+00:00", "versions_seen": {"one": {"branch:to:one": "00000000000000000000000000000005.0.6482942244329014"}, "__input__": {}, "__start__": {"__start__": "00000000000000000000000000000004.0.20320860401471696"}}, "channel_values": {"n": 6}, "channel_versions": {"n": "00000000000000000000000000000006.0.46605445976265847", "__start__": "00000000000000000000000000000007.0.7420549212284344", "branch:to:one": "00000000000000000000000000000006.0.46605445976265847"}, "updated_channels": ["__start__"]}', '{"k": 2, "step": 5, "run_id": "06ef6315-8503-4811-a1cd-73ac1721ee71", "source": "input", "parents": {}, "user_id": "anonymous", "user_display_name": "Anonymous User"}');
INSERT INTO public.checkpoints (thread_id, checkpoint_ns, checkpoint_id, parent_checkpoint_id, type, checkpoint, metadata) VALUES ('aad1af15-2c2f-4e0b-9d0b-fc97b9455035', '', '1f1eb941-9a89-6edd-8007-773c8e229825', '1f1eb941-9a4e-6ef7-8006-50f47fec1430', NULL, '{"v": 4, "id": "1f1eb941-9a89-6edd-8007-773c8e229825", "ts": "2026-11-29T01:27:54.336421+00:00", "versions_seen": {"one": {"branch:to:one": "00000000000000000000000000000008.0.9576154323445037"}, "__input__": {}, "__start__": {"__start__": "00000000000000000000000000000007.0.7420549212284344"}}, "channel_values": {"n": 2}, "channel_versions": {"n": "00000000000000000000000000000009.0.3480250138092804", "__start__": "00000000000000000000000000000008.0.9576154323445037", "branch:to:one": "00000000000000000000000000000009.0.3480250138092804"}, "updated_channels": ["n"]}', '{"k": 2, "step": 7, "run_id": "06ef6315-8503-4811-a1cd-73ac1721ee71", "source": "loop", "parents": {}, "user_id": "anonymous", "user_display_name": "Anonymous User"}');
INSERT INTO public.crons (cron_id, assistant_id, thread_id, user_id, schedule, payload, metadata, on_run_completed, enabled, end_time, next_run_date, created_at, updated_at, claimed_until) VALUES ('453c680a-b030-4f64-acab-239dd77a1aa3', 'fe096781-5601-53d2-b2f6-0d3403f7e9ca', NULL, 'anonymous', '0 9 * * 1', '{"input": {"n": 1}, "timezone": "Europe/Berlin"}', '{"m": 1}', NULL, true, NULL, '2026-12-07 08:00:00+00', '2026-11-29 01:27:54.068844+00', '2026-11-29 01:27:54.068844+00', NULL);
INSERT INTO public.crons (cron_id, assistant_id, thread_id, user_id, schedule, payload, metadata, on_run_completed, enabled, end_time, next_run_date, created_at, updated_at, claimed_until) VALUES ('5c8299ac-0abd-4a94-9f1c-6bcd034258f1', '626f2c02-a1c0-429f-a73d-f75ad2ded5db', 'aad1af15-2c2f-4e0b-9d0b-fc97b9455035', 'anonymous', '30 8 1 * *', '{"input": {"n": 1}}', '{}', NULL, true, NULL, '2027-01-01 08:30:00+00', '2026-11-29 01:27:54.157757+00', '2026-11-29 01:27:54.157757+00', NULL);
INSERT INTO public.runs (run_id, thread_id, assistant_id, status, input, config, output, error_message, user_id, created_at, updated_at, context, execution_params, claimed_by, lease_expires_at) VALUES ('1b1995d0-0aaa-4170-b395-2d8b662ae7db', 'aad1af15-2c2f-4e0b-9d0b-fc97b9455035', '626f2c02-a1c0-429f-a73d-f75ad2ded5db', 'success', '{"n": 5}', '{"configurable": {"k": 2}}', '{"n": 6}', NULL, 'anonymous', '2026-11-29 01:27:52.84487+00', '2026-11-29 01:27:52.944303+00', '{"k": 2}', '{"user": {"email": null, "org_id": null, "identity": "anonymous", "permissions": [], "display_name": "Anonymous User", "is_authenticated": false}, "trace": {"user_id": "anonymous", "graph_id": "agent", "thread_id": "aad1af15-2c2f-4e0b-9d0b-fc97b9455035", "correlation_id": "dae64891a23d44a3a81146b354434a69"}, "behavior": {"subgraphs": false, "interrupt_after": null, "interrupt_before": null, "multitask_strategy": null}, "graph_id": "agent", "execution": {"config": {"configurable": {"k": 2}}, "command": null, "context": {"k": 2}, "checkpoint": null, "durability": null, "input_data": {"n": 5}, "stream_mode": null, "event_streaming_v2": false}, "run_metadata": {}}', NULL, NULL);
INSERT INTO public.runs (run_id, thread_id, assistant_id, status, input, config, output, error_message, user_id, created_at, updated_at, context, execution_params, claimed_by, lease_expires_at) VALUES ('56cc096e-4616-4bfc-aab3-4cb2397017ea', 'aad1af15-2c2f-4e0b-9d0b-fc97b9455035', '626f2c02-a1c0-429f-a73d-f75ad2ded5db', 'success', '{"n": 5}', '{"configurable": {"k": 2}}', '{"n": 6}', NULL, 'anonymous', '2026-11-29 01:27:53.680913+00', '2026-11-29 01:27:53.738627+00', '{"k": 2}', '{"user": {"email": null, "org_id": null, "identity": "anonymous", "permissions": [], "display_name": "Anonymous User", "is_authenticated": false}, "trace": {"user_id": "anonymous", "graph_id": "agent", "thread_id": "aad1af15-2c2f-4e0b-9d0b-fc97b9455035", "correlation_id": "861000bcb25f45679cfa1966c909e958"}, "behavior": {"subgraphs": false, "interrupt_after": null, "interrupt_before": null, "multitask_strategy": null}, "graph_id": "agent", "execution": {"config": {"configurable": {"k": 2}}, "command": null, "context": {"k": 2}, "checkpoint": null, "durability": null, "input_data": {"n": 5}, "stream_mode": null, "event_streaming_v2": false}, "run_metadata": {}}', NULL, NULL);
INSERT INTO public.runs (run_id, thread_id, assistant_id, status, input, config, output, error_message, user_id, created_at, updated_at, context, execution_params, claimed_by, lease_expires_at) VALUES ('c11c7ac4-f71b-4f9d-9afd-60601d06d7de', '2da1010e-ba1e-4045-a9e6-0b021b43eb6c', '7c5865b5-0e10-5c5f-8442-9225c0215d23', 'interrupted', '{"n": 5}', '{}', '{"n": 5, "__interrupt__": [{"id": "f22a64b3c1efb10f9e66f25b42e579f0", "value": {"question": "go on?"}}]}', NULL, 'anonymous', '2026-11-29 01:27:53.834813+00', '2026-11-29 01:27:53.895466+00', '{}', '{"user": {"email": null, "org_id": null, "identity": "anonymous", "permissions": [], "display_name": "Anonymous User", "is_authenticated": false}, "trace": {"user_id": "anonymous", "graph_id": "asker", "thread_id": "2da1010e-ba1e-4045-a9e6-0b021b43eb6c", "correlation_id": "9e6f75da87bd4ae9b29da701c3dd4c0a"}, "behavior": {"subgraphs": false, "interrupt_after": null, "interrupt_before": null, "multitask_strategy": null}, "graph_id": "asker", "execution": {"config": {}, "command": null, "context": {}, "checkpoint": null, "durability": null, "input_data": {"n": 5}, "stream_mode": null, "event_streaming_v2": false}, "run_metadata": {}}', NULL, NULL);
INSERT INTO public.runs (run_id, thread_id, assistant_id, status, input, config, output, error_message, user_id, created_at, updated_at, context, execution_params, claimed_by, lease_expires_at) VALUES ('06ef6315-8503-4811-a1cd-73ac1721ee71', 'aad1af15-2c2f-4e0b-9d0b-fc97b9455035', '626f2c02-a1c0-429f-a73d-f75ad2ded5db', 'success', '{"n": 1}', '{"configurable": {"k": 2}}', '{"n": 2}', NULL, 'anonymous', '2026-11-29 01:27:54.208584+00', '2026-11-29 01:27:54.468519+00', '{"k": 2}', '{"user": {"email": null, "org_id": null, "identity": "anonymous", "permissions": [], "display_name": "Anonymous User", "is_authenticated": false}, "trace": {"user_id": "anonymous", "graph_id": "agent", "thread_id": "aad1af15-2c2f-4e0b-9d0b-fc97b9455035", "correlation_id": "4d1e29a927e644f5a03ac34e2d73d947"}, "behavior": {"subgraphs": false, "interrupt_after": null, "interrupt_before": null, "multitask_strategy": null}, "graph_id": "agent", "execution": {"config": {"configurable": {"k": 2}}, "command": null, "context": {"k": 2}, "checkpoint": null, "durability": null, "input_data": {"n": 1}, "stream_mode": null, "event_streaming_v2": false}, "run_metadata": {}}', NULL, NULL);
INSERT INTO public.store (prefix, key, value, created_at, updated_at, expires_at, ttl_minutes) VALUES ('users.anonymous.notes.tea', 'k', '{"likes": "tea"}', '2026-11-29 01:27:54.04792+00', '2026-11-29 01:27:54.04792+00', NULL, NULL);
INSERT INTO public.store_migrations (v) VALUES (0);
INSERT INTO public.store_migrations (v) VALUES (1);
INSERT INTO public.store_migrations (v) VALUES (2);
INSERT INTO public.store_migrations (v) VALUES (3);
INSERT INTO public.thread (thread_id, status, metadata_json, user_id, created_at, updated_at) VALUES ('2da1010e-ba1e-4045-a9e6-0b021b43eb6c', 'interrupted', '{"owner": "anonymous", "topic": "questions", "graph_id": "asker", "thread_name": "", "assistant_id": "7c5865b5-0e10-5c5f-8442-9225c0215d23"}', 'anonymous', '2026-11-29 01:27:53.798114+00', '2026-11-29 01:27:53.899708+00');
INSERT INTO public.thread (thread_id, status, metadata_json, user_id, created_at, updated_at) VALUES ('de12cd69-36a7-4a29-bdd1-a004ac18e2b4', 'idle', '{"owner": "anonymous", "topic": "empty", "graph_id": null, "thread_name": "", "assistant_id": null}', 'anonymous', '2026-11-29 01:27:53.939917+00', '2026-11-29 01:27:53.939917+00');
INSERT INTO public.thread (thread_id, status, metadata_json, user_id, created_at, updated_at) VALUES ('aad1af15-2c2f-4e0b-9d0b-fc97b9455035', 'idle', '{"owner": "anonymous", "topic": "tides", "graph_id": "agent", "thread_name": "", "assistant_id": "626f2c02-a1c0-429f-a73d-f75ad2ded5db"}', 'anonymous', '2026-11-29 01:27:52.656014+00', '2026-11-29 01:27:54.521919+00');
ALTER TABLE ONLY public.alembic_version
    ADD CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num);
ALTER TABLE ONLY public.assistant
    ADD CONSTRAINT assistant_pkey PRIMARY KEY (assistant_id);
ALTER TABLE ONLY public.assistant_versions
    ADD CONSTRAINT assistant_versions_pkey PRIMARY KEY (assistant_id, version);
ALTER TABLE ONLY public.checkpoint_blobs
    ADD CONSTRAINT checkpoint_blobs_pkey PRIMARY KEY (thread_id, checkpoint_ns, channel, version);
ALTER TABLE ONLY public.checkpoint_migrations
    ADD CONSTRAINT checkpoint_migrations_pkey PRIMARY KEY (v);
ALTER TABLE ONLY public.checkpoint_writes
    ADD CONSTRAINT checkpoint_writes_pkey PRIMARY KEY (thread_id, checkpoint_ns, checkpoint_id, task_id, idx);
ALTER TABLE ONLY public.checkpoints
    ADD CONSTRAINT checkpoints_pkey PRIMARY KEY (thread_id, checkpoint_ns, checkpoint_id);
ALTER TABLE ONLY public.crons
    ADD CONSTRAINT crons_pkey PRIMARY KEY (cron_id);
ALTER TABLE ONLY public.runs
    ADD CONSTRAINT runs_pkey PRIMARY KEY (run_id);
ALTER TABLE ONLY public.store_migrations
    ADD CONSTRAINT store_migrations_pkey PRIMARY KEY (v);
ALTER TABLE ONLY public.store
    ADD CONSTRAINT store_pkey PRIMARY KEY (prefix, key);
ALTER TABLE ONLY public.thread
    ADD CONSTRAINT thread_pkey PRIMARY KEY (thread_id);
ALTER TABLE ONLY public.thread_ttl
    ADD CONSTRAINT thread_ttl_pkey PRIMARY KEY (thread_id);
CREATE INDEX checkpoint_blobs_thread_id_idx ON public.checkpoint_blobs USING btree (thread_id);
CREATE INDEX checkpoint_writes_thread_id_idx ON public.checkpoint_writes USING btree (thread_id);
CREATE INDEX checkpoints_thread_id_idx ON public.checkpoints USING btree (thread_id);
CREATE INDEX idx_assistant_metadata_gin ON public.assistant USING gin (metadata jsonb_path_ops);
CREATE INDEX idx_assistant_user ON public.assistant USING btree (user_id);
CREATE UNIQUE INDEX idx_assistant_user_assistant ON public.assistant USING btree (user_id, assistant_id);
CREATE UNIQUE INDEX idx_assistant_user_graph_config ON public.assistant USING btree (user_id, graph_id, md5((config)::text));
CREATE INDEX idx_cron_assistant_id ON public.crons USING btree (assistant_id);
CREATE INDEX idx_cron_next_run ON public.crons USING btree (enabled, next_run_date);
CREATE INDEX idx_cron_thread_id ON public.crons USING btree (thread_id);
CREATE INDEX idx_cron_user ON public.crons USING btree (user_id);
CREATE INDEX idx_runs_assistant_id ON public.runs USING btree (assistant_id);
CREATE INDEX idx_runs_created_at ON public.runs USING btree (created_at);
CREATE INDEX idx_runs_lease_reaper ON public.runs USING btree (status, lease_expires_at);
CREATE INDEX idx_runs_status ON public.runs USING btree (status);
CREATE INDEX idx_runs_thread_id ON public.runs USING btree (thread_id);
CREATE INDEX idx_runs_user ON public.runs USING btree (user_id);
CREATE INDEX idx_store_expires_at ON public.store USING btree (expires_at) WHERE (expires_at IS NOT NULL);
CREATE INDEX idx_thread_metadata_gin ON public.thread USING gin (metadata_json jsonb_path_ops);
CREATE INDEX idx_thread_ttl_expires_at ON public.thread_ttl USING btree (expires_at);
CREATE INDEX idx_thread_user ON public.thread USING btree (user_id);
CREATE INDEX store_prefix_idx ON public.store USING btree (prefix text_pattern_ops);
ALTER TABLE ONLY public.assistant_versions
    ADD CONSTRAINT assistant_versions_assistant_id_fkey FOREIGN KEY (assistant_id) REFERENCES public.assistant(assistant_id) ON DELETE CASCADE;
ALTER TABLE ONLY public.crons
    ADD CONSTRAINT crons_assistant_id_fkey FOREIGN KEY (assistant_id) REFERENCES public.assistant(assistant_id) ON DELETE CASCADE;
ALTER TABLE ONLY public.crons
    ADD CONSTRAINT crons_thread_id_fkey FOREIGN KEY (thread_id) REFERENCES public.thread(thread_id) ON DELETE CASCADE;
ALTER TABLE ONLY public.runs
    ADD CONSTRAINT runs_assistant_id_fkey FOREIGN KEY (assistant_id) REFERENCES public.assistant(assistant_id) ON DELETE CASCADE;
ALTER TABLE ONLY public.runs
    ADD CONSTRAINT runs_thread_id_fkey FOREIGN KEY (thread_id) REFERENCES public.thread(thread_id) ON DELETE CASCADE;
ALTER TABLE ONLY public.thread_ttl
    ADD CONSTRAINT thread_ttl_thread_id_fkey FOREIGN KEY (thread_id) REFERENCES public.thread(thread_id) ON DELETE CASCADE;
