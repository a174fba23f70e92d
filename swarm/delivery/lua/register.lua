-- Make a holder known. ARGV: holder, its queues joined by commas, prefix of earlier holders or ''
-- Returns the holders that begin with the prefix and are not this one.

local holder, queues, prefix = ARGV[1], ARGV[2], ARGV[3]
redis.call('HSET', 'swarm:holders', holder, queues)
local earlier = {}
if prefix ~= '' then
  for _, name in ipairs(redis.call('HKEYS', 'swarm:holders')) do
    if name ~= holder and string.sub(name, 1, #prefix) == prefix then
      earlier[#earlier + 1] = name
    end
  end
end
return earlier
