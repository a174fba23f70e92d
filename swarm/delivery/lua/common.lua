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

-- A queue's lists, one for each priority; `prefix` makes their schedules of them.
local function lists_of(queue, prefix)
  local keys = {prefix .. queue}
  for priority = 1, 9 do
    keys[#keys + 1] = prefix .. queue .. SEPARATOR .. priority
  end
  return keys
end

local function is_waiting(queue)
  return redis.call('EXISTS', unpack(lists_of(queue, ''))) > 0
end

-- Each list has a schedule: what is to be taken before it, from a time on.
local SCHEDULE = 'swarm:scheduled:'
local function is_scheduled(queue)
  return redis.call('EXISTS', unpack(lists_of(queue, SCHEDULE))) > 0
end

-- When the first scheduled message is due that is not due before `from`, or nil.
local function next_due(queue, from)
  local soonest
  if is_scheduled(queue) then
    for _, schedule in ipairs(lists_of(queue, SCHEDULE)) do
      local first = redis.call(
        'ZRANGE', schedule, from, '+inf', 'BYSCORE', 'LIMIT', 0, 1, 'WITHSCORES')
      if first[2] then
        soonest = math.min(soonest or math.huge, tonumber(first[2]))
      end
    end
  end
  return soonest
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

-- When a message began to wait, by the broker's own clock: others differ from each other.
local function stamped(message, at)
  local bare = string.gsub(message, '"waits_since": %d+, ', '', 1)
  local stamp = string.format('"waits_since": %.0f, "delivery_tag":', at)
  return (string.gsub(bare, '"delivery_tag":', stamp, 1))
end

-- due: epoch milliseconds, or '' for now.
local function enqueue(key, message, due)
  local queue, now = queue_of(key), now_ms()
  if due ~= '' and tonumber(due) > now then
    redis.call('ZADD', SCHEDULE .. key, due, key .. '\n' .. stamped(message, tonumber(due)))
  else
    redis.call('LPUSH', key, stamped(message, now))
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
      -- Whoever waits there empties it. What is left was given up, and goes however much follows.
      if redis.call('RPUSH', mailbox, key .. '\n' .. value) == 1 then
        redis.call('EXPIRE', mailbox, ANSWER_TTL)
      end
    end
    redis.call('DEL', waiting)
  end
end

-- Add requests of producers to those that the scaler reads.
local function count(requests)
  if requests and requests ~= '0' then
    redis.call('INCRBY', 'swarm:usage', requests)
  end
end
