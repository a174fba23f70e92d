-- Put one message into its queue, once.
-- ARGV: delivery tag, list key, message or '' for a trial that queues nothing, due, idempotency key
--       or '', seconds its claim lasts, task id, seconds the guard lasts, requests that this producer
--       has made and nobody was told of
-- Returns '' when the message is queued, or the id of the task that holds the idempotency key.
-- Refuses with LIMITED while the scaler keeps what remains of a metered broker's budget for the tasks
-- that it has.

local tag, key, message, due = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local idempotency_key, claim_ttl, task_id, guard_ttl = ARGV[5], ARGV[6], ARGV[7], ARGV[8]

local closed = redis.call('GET', 'swarm:closed')
if closed then
  return redis.error_reply('LIMITED ' .. closed)
end
count(ARGV[9])
if message == '' then
  redis.call('SET', 'swarm:sent:' .. tag .. ':', '1', 'EX', 1)
  return ''
end

local claim = 'swarm:claim:' .. idempotency_key
local claimed_by = idempotency_key ~= '' and redis.call('GET', claim)
if claimed_by and claimed_by ~= task_id then
  return claimed_by
end
-- A publisher that lost the reply asks again. One message may go to several queues.
if redis.call('SET', 'swarm:sent:' .. tag .. ':' .. key, '1', 'NX', 'EX', guard_ttl) then
  enqueue(key, message, due)
end
-- Comes last: an error undoes nothing, and a claim stands for a task that is queued.
if idempotency_key ~= '' and not claimed_by then
  redis.call('SET', claim, task_id, 'EX', claim_ttl)
end
return ''
