-- Which execution asked a question.
SELECT execution
FROM events
WHERE tenant = {tenant:String} AND type = 'ApprovalRequested'
    AND JSONExtractString(payload, 'approval_id') = {approval:String}
LIMIT 1
