-- Read the lines of some limits. ARGV: now or 0, limits. Returns window, reserved, spent and unconfirmed for each.
local found = {}
for _, limit in ipairs(limits(2, present(ARGV[1]))) do
  found[#found + 1] = limit.window
  found[#found + 1] = sum(limit.line, 'r')
  found[#found + 1] = sum(limit.line, 's')
  found[#found + 1] = sum(limit.line, 'u')
end
return found
