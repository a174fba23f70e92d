-- Shared by every script of swarm.delivery; keys are listed in swarm/delivery/keys.py.

local SEPARATOR = '\6\22' -- kombu's, between a queue's name and its priority

local function queue_of(key)
  local at = string.find(key, SEPARATOR, 1, true)
  return at and string.sub(key, 1, at - 1) or key
end

local function now_ms()
  local now = redis.call('TIME')
  return now[1] * 1000 + math.floor(now[2] / 1000)
end

-- One element is enough: whoever takes it looks, and rings again if there is more.
local function ring(queue)
  local bell = 'swarm:bell:' .. queue
  if redis.call('EXISTS', bell) == 0 then
    redis.call('LPUSH', bell, '1')
  end
end

local function is_waiting(queue)
  local keys = {queue}
  for priority = 1, 9 do
    keys[#keys + 1] = queue .. SEPARATOR .. priority
  end
  return redis.call('EXISTS', unpack(keys)) > 0
end

local function is_scheduled(queue)
  return redis.call('EXISTS', 'swarm:scheduled:' .. queue) == 1
end

-- Held and scheduled messages carry the list they came from: "<list key>\n<message>".
local function open(envelope)
  local at = string.find(envelope, '\n', 1, true)
  return string.sub(envelope, 1, at - 1), string.sub(envelope, at + 1)
end

-- Quotes inside a JSON string are escaped, so text of the user's cannot look like these.
local function tag_of(message)
  return string.match(message, '"delivery_tag":%s*"([^"]+)"') or redis.sha1hex(message)
end

-- Whoever gets a message again is told so, by a property of it.
local REDELIVERED = '"redelivered": true, "delivery_tag":'
local function redelivered(message)
  if string.find(message, REDELIVERED, 1, true) then
    return message
  end
  return (string.gsub(message, '"delivery_tag":', REDELIVERED, 1))
end

local function task_id_of(message)
  return string.match(message, '"id":%s*"([^"]+)"') or ''
end

-- due: epoch milliseconds, or '' for now.
local function enqueue(key, message, due)
  local queue = queue_of(key)
  if due ~= '' and tonumber(due) > now_ms() then
    redis.call('ZADD', 'swarm:scheduled:' .. queue, due, key .. '\n' .. message)
  else
    redis.call('LPUSH', key, message)
  end
  ring(queue)
end

-- Whether a stored result is the last word on its task, as Celery writes it.
local function is_final(value)
  local status = string.match(value, '^{"status":%s*"(%u+)"')
  return status == 'SUCCESS' or status == 'FAILURE' or status == 'REVOKED'
end

local LEASE_TTL = 60 -- swarm.delivery.holder.LEASE_S

-- Tell everybody who waits for a result: subscribers, and those who left a mailbox.
local ANSWER_TTL = 120
local function answer(key, value)
  redis.call('PUBLISH', key, value)
  if is_final(value) then
    local waiting = 'swarm:waiting:' .. key
    for _, mailbox in ipairs(redis.call('SMEMBERS', waiting)) do
      redis.call('RPUSH', mailbox, key .. '\n' .. value)
      redis.call('EXPIRE', mailbox, ANSWER_TTL)
      redis.call('DEL', waiting)
    end
  end
end

-- What is due goes to the head of its queue: its turn came before what waits there.
local function promote(queue)
  local scheduled = 'swarm:scheduled:' .. queue
  local due = redis.call('ZRANGE', scheduled, '-inf', now_ms(), 'BYSCORE', 'LIMIT', 0, 100)
  for at = #due, 1, -1 do
    local key, message = open(due[at])
    redis.call('RPUSH', key, message)
    redis.call('ZREM', scheduled, due[at])
  end
end

local function next_due(queue)
  local first = redis.call('ZRANGE', 'swarm:scheduled:' .. queue, 0, 0, 'WITHSCORES')
  return first[2] and tonumber(first[2]) or nil
end
