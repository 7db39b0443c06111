-- ARGV: tenant most_changes id...
local s, gone = shelf(ARGV[1]), {}
for at = 3, #ARGV do
  if drop(s, ARGV[at]) then
    gone[#gone + 1] = ARGV[at]
  end
end
local number = 0
if #gone > 0 then
  number = announce(ARGV[2], ARGV[1], '', '', gone)
end
return {#gone, number}
