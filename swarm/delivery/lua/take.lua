-- Move up to ARGV[2] messages from the queues, and what is due of their schedules, to the holder's
-- own list.
-- ARGV: holder, most messages to take, '1' if the holder watches the schedule or has just taken a
--       ring, its queues joined by commas, then list keys in the order in which they are emptied
-- Returns {more, next due or -1, now, key, message, revoked, key, ...}; times are in epoch ms.

local holder, most, watches, joined = ARGV[1], tonumber(ARGV[2]), ARGV[3], ARGV[4]
local held = 'swarm:held:' .. holder
local now = now_ms()

local taken = {}
local count = 0
local is_leased = false

-- Returns the refusal, if it was refused.
local function hold(key, message)
  local answer = redis.pcall('RPUSH', held, key .. '\n' .. message)
  if type(answer) == 'table' and answer.err then
    return answer
  end
  is_leased = is_leased or string.find(message, REDELIVERED, 1, true) ~= nil
  count = count + 1
  taken[#taken + 1] = key
  taken[#taken + 1] = message
  taken[#taken + 1] = redis.call('EXISTS', 'swarm:revoked:' .. task_id_of(message))
  return nil
end

for at = 5, #ARGV do
  local list = ARGV[at]
  -- What is due comes first: its turn came before what waits in the list.
  if count < most then
    local schedule = SCHEDULE .. list
    local due = redis.call(
      'ZRANGE', schedule, '-inf', now, 'BYSCORE', 'LIMIT', 0, most - count)
    for _, envelope in ipairs(due) do
      local refusal = hold(open(envelope))
      if refusal then
        return refusal
      end
      redis.call('ZREM', schedule, envelope)
    end
  end
  while count < most do
    local message = redis.call('RPOP', list)
    if not message then
      break
    end
    local refusal = hold(list, message)
    if refusal then
      redis.call('RPUSH', list, message)
      return refusal
    end
  end
end
if count > 0 then
  redis.call('HSET', 'swarm:holders', holder, joined)
end
if is_leased then
  -- To the reaper two takings by one holder look like one.
  redis.call('SET', 'swarm:lease:' .. holder, '1', 'EX', LEASE_TTL)
end

-- Whoever has room left goes on waiting and watches the schedule; a watcher that is full hands
-- the watch over.
local will_wait = count < most
local more, due = 0, nil
for queue in string.gmatch(joined, '[^,]+') do
  local soonest = next_due(queue, '-inf')
  if is_waiting(queue) or (soonest and soonest <= now) then
    more = 1
    ring(queue)
  elseif not soonest then
    redis.call('DEL', 'swarm:bell:' .. queue)
  elseif will_wait then
    redis.call('DEL', 'swarm:bell:' .. queue)
    due = math.min(due or soonest, soonest)
  elseif watches == '1' then
    ring(queue)
  end
end
local reply = {more, due or -1, now}
for _, item in ipairs(taken) do
  reply[#reply + 1] = item
end
return reply
