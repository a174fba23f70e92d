-- Let go of what a holder has: to the head of its queue, to the dead-letter list, or for good.
-- ARGV: holder, 'return' | 'died' | 'dead' | 'forget', reason, deaths that make a message poison,
--       date (ISO 8601), seconds a result lasts,
--       'all' | 'only' | 'except' | 'unleased', then delivery tags (or whole messages)
-- 'died' counts a death for each message; 'unleased' is 'only' for a holder without a lease.
-- Returns {messages returned to their queues, messages now in the dead-letter list}.

local holder, mode, reason, limit = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4])
local date, result_ttl, choice = ARGV[5], ARGV[6], ARGV[7]
local held = 'swarm:held:' .. holder
local DEATHS_TTL = 7 * 24 * 3600

local function is_named(envelope)
  for at = 8, #ARGV do
    if string.find(envelope, ARGV[at], 1, true) then
      return true
    end
  end
  return false
end

local function dead_letter(key, message, why, history)
  local tag = tag_of(message)
  local ok, document = pcall(cjson.decode, message)
  local headers = ok and type(document) == 'table' and document.headers or {}
  if type(headers) ~= 'table' then
    headers = {}
  end
  local id = type(headers.id) == 'string' and headers.id or ''
  redis.call('HSET', 'swarm:dead', tag, cjson.encode({
    tag = tag, task_id = id, task = type(headers.task) == 'string' and headers.task or '',
    key = key, reason = why, at = now_ms(), history = history, message = message,
  }))
  redis.call('DEL', 'swarm:deaths:' .. tag)
  -- Another message of the same task may be committed; its result stands.
  if id ~= '' and redis.call('EXISTS', 'swarm:done:' .. id) == 0 then
    -- Whoever waits for the result is told; a replay takes it back.
    local result = 'celery-task-meta-' .. id
    local rest = cjson.encode({
      task_id = id, date_done = date,
      traceback = cjson.null, children = cjson.null,
      result = {
        exc_type = 'DeadLetteredError', exc_module = 'swarm.errors',
        exc_message = {why .. ' (swarm dead show ' .. tag .. ')'},
      },
    })
    local value = '{"status": "FAILURE", ' .. string.sub(rest, 2)
    redis.call('SET', result, value, 'EX', result_ttl)
    answer(result, value)
  end
end

if choice == 'unleased' and redis.call('EXISTS', 'swarm:lease:' .. holder) == 1 then
  return {0, 0}
end

local returned, dead, touched = 0, 0, {}
local envelopes = redis.call('LRANGE', held, 0, -1)
-- From the newest to the oldest, so that the oldest ends at the head.
for at = #envelopes, 1, -1 do
  local envelope = envelopes[at]
  local chosen = choice == 'all' or is_named(envelope) == (choice ~= 'except')
  if chosen then
    local key, message = open(envelope)
    local why, history = reason, {}
    local forgotten = mode == 'forget'
    local poisoned = mode == 'dead'
    if mode == 'died' or mode == 'dead' then
      local deaths = 'swarm:deaths:' .. tag_of(message)
      if mode == 'died' then
        redis.call('RPUSH', deaths, date .. ' ' .. reason)
        redis.call('EXPIRE', deaths, DEATHS_TTL)
      end
      history = redis.call('LRANGE', deaths, 0, -1)
      if mode == 'died' and #history >= limit then
        poisoned = true
        why = #history .. ' workers died under it, the last: ' .. reason
      end
    end
    if forgotten then
      redis.call('DEL', 'swarm:deaths:' .. tag_of(message))
    elseif poisoned then
      dead_letter(key, message, why, history)
      dead = dead + 1
    else
      redis.call('RPUSH', key, redelivered(message))
      touched[queue_of(key)] = true
      returned = returned + 1
    end
    -- Comes last: an error undoes nothing, and rather two have a message than nobody.
    redis.call('LREM', held, -1, envelope)
  end
end

-- It may have died between the bell and the queue, or while it watched the schedule.
local queues = redis.call('HGET', 'swarm:holders', holder) or ''
for queue in string.gmatch(queues, '[^,]+') do
  touched[queue] = true
end
for queue in pairs(touched) do
  if is_waiting(queue) or is_scheduled(queue) then
    ring(queue)
  end
end
if redis.call('EXISTS', held) == 0 then
  redis.call('DEL', 'swarm:lease:' .. holder)
  if choice == 'all' or choice == 'unleased' then
    redis.call('HDEL', 'swarm:holders', holder)
  end
end
return {returned, dead}
