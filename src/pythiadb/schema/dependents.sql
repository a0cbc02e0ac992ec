-- Objects of users that depend on schema pythia or on a model's views; the models' own views and the triggers of vector
-- indexes do not count.
WITH views AS (
    SELECT relation AS view FROM pythia.model WHERE relation IS NOT NULL
    UNION ALL SELECT view FROM pythia.model_detail),
ours AS (
    SELECT 'pg_proc'::regclass AS classid, oid AS objid FROM pg_proc
    WHERE pronamespace IN ('pythia'::regnamespace, 'vecsys'::regnamespace, 'dbms_vector'::regnamespace, 'dbms_data_mining'::regnamespace)
    UNION ALL SELECT 'pg_class'::regclass, oid FROM pg_class WHERE relnamespace IN ('pythia'::regnamespace, 'vecsys'::regnamespace)
    UNION ALL SELECT 'pg_trigger'::regclass, t.oid FROM pg_trigger t JOIN pg_proc p ON p.oid = t.tgfoid
    WHERE p.pronamespace IN ('pythia'::regnamespace, 'vecsys'::regnamespace)
    UNION ALL SELECT 'pg_class'::regclass, view FROM views),
users AS (
    SELECT DISTINCT d.classid, d.objid, d.objsubid
    FROM pg_depend d JOIN ours o ON (d.refclassid, d.refobjid) = (o.classid, o.objid)
    WHERE d.deptype = 'n' AND d.classid IN ('pg_rewrite'::regclass, 'pg_attrdef'::regclass, 'pg_constraint'::regclass, 'pg_proc'::regclass, 'pg_trigger'::regclass))
SELECT pg_describe_object(u.classid, u.objid, u.objsubid)
FROM users u
LEFT JOIN pg_rewrite r ON u.classid = 'pg_rewrite'::regclass AND r.oid = u.objid
LEFT JOIN pg_class c ON c.oid = r.ev_class
WHERE (u.classid, u.objid) NOT IN (SELECT classid, objid FROM ours)
  AND (c.oid IS NULL OR (c.relnamespace <> 'pythia'::regnamespace AND c.oid NOT IN (SELECT view FROM views)))
  AND NOT EXISTS (SELECT FROM pg_attrdef a JOIN pg_class t ON t.oid = a.adrelid
                  WHERE u.classid = 'pg_attrdef'::regclass AND a.oid = u.objid AND t.relnamespace IN ('pythia'::regnamespace, 'vecsys'::regnamespace))
  AND NOT EXISTS (SELECT FROM pg_constraint k WHERE u.classid = 'pg_constraint'::regclass AND k.oid = u.objid AND k.connamespace = 'pythia'::regnamespace)
ORDER BY 1
