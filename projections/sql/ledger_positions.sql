-- How far rows stand: the newest complete batch's word on each partition, with the highest claim up to there (rule 5).
SELECT
    topic,
    partition,
    argMax(last_offset, seq) AS last_offset,
    argMax(highest_claim, seq) AS highest_claim
FROM batches
WHERE topic != '' AND seq <= (SELECT max(seq) FROM batches_done)
GROUP BY topic, partition
ORDER BY topic, partition
